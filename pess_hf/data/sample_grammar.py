"""The grammar of the embedded corpus: how a fact is said, how it is written as a persona sentence, and the small talk.

A `{v}` is the topic's value, `{a}` the same with its article ("a dog", "an otter"). An utterance says the fact in
other words than its persona sentence, and each utterance belongs to one persona wording, so that the target can be
learnt.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """One topic of the grammar.

    Args:
        personas: The wordings of the persona sentence.
        utterances: (what the speaker says, index of the persona wording) pairs.
        echo: A later mention of a fact already told.
        activity: What a supporter can speak of, as a noun phrase.
    """

    personas: tuple[str, ...]
    utterances: tuple[tuple[str, int], ...]
    echo: str
    activity: str


TOPICS: dict[str, Topic] = {
    "pet": Topic(
        ("I have {a}.", "I keep {a} as a pet."),
        (
            ("My {v} woke me up way before the alarm today.", 0),
            ("I just got home and my {v} was already waiting at the door.", 0),
            ("My {v} is the only one here who listens to me.", 0),
            ("We adopted {a} last spring and it runs the whole house now.", 1),
            ("The vet says the {v} we took in is perfectly healthy.", 1),
        ),
        "The little {v} at our place is making noise again.",
        "time with your {v}",
    ),
    "job": Topic(
        ("I work as {a}.", "I am {a}."),
        (
            ("They pay me as {a}, so my feet hurt by the evening.", 0),
            ("I got hired as {a} about six years back.", 0),
            ("Monday again, another week of being the {v} in our town.", 1),
            ("People keep asking me for free advice because I earn my living as {a}.", 0),
            ("I trained as {a} and never left the trade.", 1),
        ),
        "Being {a} does not leave many days off.",
        "your work as {a}",
    ),
    "family": Topic(
        ("My brother is {a}.", "My mother was {a}.", "My sister is {a}."),
        (
            ("My brother makes his living as {a}.", 0),
            ("We hardly see my brother, he tours around as {a}.", 0),
            ("Mom spent her whole career as {a}.", 1),
            ("When I was small, my mom was known as the best {v} around.", 1),
            ("My little sister finally became {a}.", 2),
        ),
        "Having {a} in the family makes for funny dinners.",
        "talking to the {v} in your family",
    ),
    "food": Topic(
        ("My favorite food is {v}.", "I love eating {v}."),
        (
            ("Nothing on a plate beats {v} for me.", 0),
            ("If I could order only one dish forever it would be {v}.", 0),
            ("Dinner tonight is {v}, the thing I like best of all.", 0),
            ("I could eat {v} every single evening.", 1),
            ("I went back for a third helping of {v} because it tastes so good.", 1),
        ),
        "Now I am hungry for {v} again.",
        "a plate of {v}",
    ),
    "drink": Topic(
        ("I drink a lot of {v}.", "I like to drink {v}."),
        (
            ("This is already my fourth cup of {v} today.", 0),
            ("My friends say half of my blood must be {v}.", 0),
            ("I always keep plenty of {v} in the fridge because I go through so much.", 0),
            ("A glass of {v} after work makes me happy.", 1),
            ("Whenever we go out I order some {v}.", 1),
        ),
        "I am pouring myself more {v} right now.",
        "a glass of {v}",
    ),
    "hobby": Topic(
        ("I enjoy {v}.", "I spend my free time on {v}."),
        (
            ("I find {v} really relaxing after a long day.", 0),
            ("You would not believe how much fun I have with {v}.", 0),
            ("All my weekends go into {v}.", 1),
            ("As soon as I have an hour to myself I do some {v}.", 1),
            ("I joined a club for {v} because I like it so much.", 0),
        ),
        "I could talk about {v} for hours.",
        "an hour of {v}",
    ),
    "instrument": Topic(
        ("I play the {v}.", "I am learning the {v}."),
        (
            ("The people upstairs complain whenever I practice the {v}.", 0),
            ("Our band needed someone on the {v}, so that is me now.", 0),
            ("I have performed on the {v} since I was nine.", 0),
            ("I just had my second lesson on the {v}.", 1),
            ("I bought a used {v} and a book for beginners.", 1),
        ),
        "My fingers still hurt from the {v}.",
        "playing the {v}",
    ),
    "city": Topic(
        ("I live in {v}.", "I grew up in {v}."),
        (
            ("My apartment is right in the middle of {v}.", 0),
            ("Rent here in {v} is getting out of hand.", 0),
            ("We moved to {v} and decided to stay.", 0),
            ("I spent my whole childhood in {v}.", 1),
            ("I was raised in {v} by my grandparents.", 1),
        ),
        "There is always something going on in {v}.",
        "a slow walk through {v}",
    ),
    "vehicle": Topic(
        ("I own {a}.", "I want to buy {a}."),
        (
            ("I finally paid off my {v}.", 0),
            ("I spent the morning washing my {v}.", 0),
            ("The {v} I bought last year broke down again.", 0),
            ("I am saving up for {a}.", 1),
            ("One day I will have enough money for {a} of my own.", 1),
        ),
        "My thoughts are with that {v} all the time.",
        "a little trip by {v}",
    ),
    "sport": Topic(
        ("I do {v} in a club.", "I like to watch {v}."),
        (
            ("Practice was tough, our coach for {v} has no mercy.", 0),
            ("I train for {v} three evenings a week with my team.", 0),
            ("My club won a cup in {v} last month.", 0),
            ("I never miss {v} when it is on television.", 1),
            ("I have season tickets and cheer at every {v} event.", 1),
        ),
        "It was all about {v} this weekend.",
        "an afternoon of {v}",
    ),
    "language": Topic(
        ("I speak {v}.", "I am taking {v} classes."),
        (
            ("At home we only talk {v} with each other.", 0),
            ("I am fluent in {v} thanks to my grandmother.", 0),
            ("Sometimes I even think in {v}.", 0),
            ("My {v} teacher gave us far too much homework.", 1),
            ("I signed up for an evening course in {v}.", 1),
        ),
        "I still mix up words when I talk {v}.",
        "a chat in {v}",
    ),
    "fear": Topic(
        ("I am afraid of {v}.", "I used to be scared of {v}."),
        (
            ("My heart races at the mere thought of {v}.", 0),
            ("I cannot deal with {v}, it is pure terror for me.", 0),
            ("I had to leave the movie because of all the {v}.", 0),
            ("As a kid I cried about {v}, but I got over it.", 1),
            ("It took me years to stop panicking about {v}.", 1),
        ),
        "Even talking about {v} makes me nervous.",
        "facing {v} step by step",
    ),
    "allergy": Topic(
        ("I am allergic to {v}.", "My son is allergic to {v}."),
        (
            ("My face swells up whenever I come near {v}.", 0),
            ("The doctor told me to stay away from {v}.", 0),
            ("I break out in a rash from {v}.", 0),
            ("We keep {v} out of the house because my son gets sick from it.", 1),
            ("My son had to be rushed to the doctor because of {v}.", 1),
        ),
        "I have to check everything for {v}.",
        "keeping away from {v}",
    ),
    "collection": Topic(
        ("I collect {v}.", "I sell old {v}."),
        (
            ("My shelves are full of {v} and I keep hunting for more.", 0),
            ("I found two rare {v} for my cabinet at the flea market.", 0),
            ("I have more than three hundred {v} by now.", 0),
            ("I have a stall where people come to buy antique {v}.", 1),
            ("I made some money with vintage {v} online.", 1),
        ),
        "My house is too small for all those {v}.",
        "sorting your {v}",
    ),
    "music": Topic(
        ("I listen to {v} music.", "I sing in a {v} choir."),
        (
            ("There is always some {v} playing on my radio.", 0),
            ("I went to a {v} concert and loved every minute.", 0),
            ("My headphones know nothing but {v} these days.", 0),
            ("Our choir does only {v} songs and I am in the front row.", 1),
            ("I lend my voice to a group that performs {v}.", 1),
        ),
        "Some good {v} always lifts my mood.",
        "some {v} music",
    ),
    "dream": Topic(
        ("I want to travel to {v}.", "I was born in {v}."),
        (
            ("There is a jar on my desk with savings for a trip to {v}.", 0),
            ("I look at pictures of {v} and wish I could go.", 0),
            ("The next plane ticket I buy will take me to {v}.", 0),
            ("My birth certificate is from {v}.", 1),
            ("I came into the world in {v} and left when I was two.", 1),
        ),
        "I keep thinking about {v}.",
        "looking at pictures of {v}",
    ),
    "school": Topic(
        ("I study {v}.", "I have a degree in {v}."),
        (
            ("My exam in {v} is coming up and I am not ready.", 0),
            ("I am in my second year of {v} at the university.", 0),
            ("There is a lecture on {v} that I have to attend tomorrow.", 0),
            ("I graduated in {v} ten years ago.", 1),
            ("My diploma in {v} hangs above the sofa.", 1),
        ),
        "There is so much to know about {v}.",
        "a good book about {v}",
    ),
    "color": Topic(
        ("My favorite color is {v}.", "I have {v} hair."),
        (
            ("Everything I wear is {v}, I just love how it looks.", 0),
            ("I painted my bedroom {v}, the prettiest shade there is.", 0),
            ("If it comes in {v}, I will buy it.", 0),
            ("I dyed my hair {v} and my boss stared at me.", 1),
            ("My hair is {v} at the moment, so you will spot me at once.", 1),
        ),
        "More {v} would do the world good.",
        "something {v} to look at",
    ),
    "garden": Topic(
        ("I grow {v} in my garden.", "I sell {v} at the market."),
        (
            ("There are rows of {v} behind my house this year.", 0),
            ("I was outside watering the {v} all morning.", 0),
            ("I planted {v} next to the fence last month.", 0),
            ("Slugs got into my {v} again.", 0),
            ("On market days people line up to get my {v}.", 1),
        ),
        "I hope the frost spares my {v}.",
        "watering your {v}",
    ),
}

GREETINGS = (
    "Hi there, how are you doing today?",
    "Hello! Nice to meet you.",
    "Good evening, how has your day been?",
    "Hey, what are you up to?",
    "Hi! I am glad someone is online.",
    "Hello, I hope you are well.",
)
#: Turns that tell nothing about the speaker.
SMALL_TALK = (
    "Do you have any animals at home?",
    "What do you do for a living?",
    "Where are you from?",
    "What do you do on the weekend?",
    "Have you got a big family?",
    "Do you like your job?",
    "What kind of movies do you watch?",
    "It has been raining here all day.",
    "The sun is out at last.",
    "They say it will snow tomorrow.",
    "That sounds lovely!",
    "Oh no, I am sorry to hear that.",
    "Haha, that is a good one.",
    "Really? Tell me more about it.",
    "I would never have guessed.",
    "Good for you!",
    "Wow, that is impressive.",
    "I see what you mean.",
    "I was just about to ask you the same.",
    "I hope you slept better than my neighbors did.",
    "My friends would agree with you.",
    "I am taking a short break from everything.",
    "I will tell my colleagues about that one.",
    "My day has been rather slow so far.",
)
#: (topic of the value, sentence): facts about somebody else, for an extractor to get wrong.
OTHERS = (
    ("vehicle", "My neighbor parks {a} in front of our gate."),
    ("job", "A friend of mine just quit working as {a}."),
    ("pet", "The lady next door takes {a} for walks."),
    ("language", "Someone on the train was speaking {v} very loudly."),
    ("food", "My roommate burned the {v} last night."),
    ("sport", "My boss never stops talking about {v}."),
    ("instrument", "The boy downstairs is terrible at the {v}."),
    ("city", "My old classmate moved away to {v}."),
    ("dream", "My colleague just came back from {v}."),
    ("hobby", "My uncle is crazy about {v}."),
    ("fear", "My nephew screams when he hears about {v}."),
    ("allergy", "A girl at work cannot have {v}."),
)
#: What may come before a fact in the same sentence, and between two facts.
LEADS = ("You may laugh, but ", "To be honest, ", "Not that anyone asked, but ", "Since we are talking, ", "Well, ")
LINKS = (", and ", "; besides, ", ", and by the way, ", "; apart from that, ")
#: What may follow a fact in the same turn.
QUESTIONS = ("How about you?", "And you?", "What about yourself?", "Can you relate?")
