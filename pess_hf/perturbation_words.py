"""Word lists of the perturbation rules: kinds of entities that can stand for each other, and ways to say the same."""

from __future__ import annotations

#: Words of one kind are swapped for each other. Small words that are also something else ("may", "rose") are left out.
ENTITIES: dict[str, tuple[str, ...]] = {
    "animal": ("dog", "cat", "horse", "parrot", "rabbit", "hamster", "turtle", "goldfish", "snake", "cow", "lizard"),
    "animals": ("dogs", "cats", "horses", "parrots", "rabbits", "hamsters", "turtles", "snakes", "cows", "lizards"),
    "relative": ("mother", "father", "sister", "brother", "aunt", "uncle", "cousin", "grandmother", "grandfather"),
    "relative, informal": ("mom", "dad", "grandma", "grandpa"),
    "relatives": ("sisters", "brothers", "aunts", "uncles", "cousins", "sons", "daughters"),
    "colour": ("red", "blue", "green", "yellow", "purple", "pink", "orange", "black", "white", "brown"),
    "job": (
        "teacher",
        "nurse",
        "doctor",
        "lawyer",
        "mechanic",
        "waitress",
        "chef",
        "farmer",
        "librarian",
        "accountant",
    ),
    "place": ("california", "texas", "florida", "canada", "england", "france", "germany", "spain", "japan", "mexico"),
    "food": ("pizza", "sushi", "pasta", "steak", "chicken", "tacos", "burgers", "salad", "soup", "chocolate"),
    "drink": ("coffee", "tea", "beer", "wine", "milk", "juice"),
    "sport": ("football", "basketball", "soccer", "tennis", "baseball", "hockey", "golf", "volleyball"),
    "pastime": ("reading", "cooking", "hiking", "swimming", "dancing", "painting", "fishing", "running", "knitting"),
    "music": ("rock", "jazz", "country", "rap", "metal", "classical", "blues"),
    "instrument": ("guitar", "piano", "violin", "drums", "flute", "trumpet"),
    "vehicle": ("car", "truck", "motorcycle", "bike", "boat", "van"),
    "season": ("summer", "winter", "autumn"),
    "number": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    "digits": ("2", "3", "4", "5", "6", "7", "8", "9"),
    "school": ("school", "college", "university", "kindergarten"),
}

#: A phrase, in lower case, and ways to say the same in its place.
PARAPHRASES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"\bi (?:really )?love to\b", ("i am very fond of it when i", "what i love most is that i")),
    (r"\bi like to\b", ("i am happy when i", "it pleases me when i")),
    (r"\bi (?:really )?love\b", ("i adore", "i am crazy about")),
    (r"\bi (?:really )?like\b", ("i am fond of", "i am keen on")),
    (r"\bi enjoy\b", ("i take pleasure in", "i am fond of")),
    (r"\bi hate\b", ("i cannot stand", "i detest")),
    (r"\bi want to\b", ("i would like to", "it is my wish to")),
    (r"\bi work as\b", ("my job is that of", "i make my living as")),
    (r"\bi work at\b", ("my job is at", "i am employed at")),
    (r"\bi work in\b", ("my job is in", "i am employed in")),
    (r"\bi work for\b", ("my employer is", "i am employed by")),
    (r"\bi live in\b", ("my home is in", "i make my home in")),
    (r"\bi am from\b", ("i come from", "i was born in")),
    (r"\bi have(?= (?:a|an|two|three|four|five|six|\d+|many|several)\b)", ("i own", "there belongs to me")),
    (r"\bi own\b", ("i have", "i am the owner of")),
    (r"\bi drive\b", ("my vehicle is", "i get around in")),
    (r"\bmy favorite (\w+) is\b", (r"the \1 i like best is", r"of every \1 i prefer")),
    (r"\bmy name is\b", ("i am called", "people call me")),
    (r"\bi am married\b", ("i have a spouse", "i am in a marriage")),
    (r"\bi do not\b", ("i don't",)),
    (r"\bi am\b", ("i'm",)),
)

#: Verbs after "i" or "we" that take "do not" in front of them; past forms take "did not" and change.
PRESENT_VERBS = (
    "have like love enjoy want need work live play own eat drink drive go hate know think speak read watch study run "
    "sing dance cook travel teach collect write wear listen swim hike prefer spend take make get see use keep feel"
)
PAST_VERBS = {
    "had": "have", "went": "go", "worked": "work", "lived": "live", "played": "play", "loved": "love", "liked": "like",
    "grew": "grow", "was born": "was not born", "moved": "move", "got": "get", "made": "make", "saw": "see",
    "studied": "study", "wanted": "want", "took": "take", "bought": "buy", "won": "win", "lost": "lose",
}  # fmt: skip
AUXILIARIES = "am are is was were can could will would should must"
