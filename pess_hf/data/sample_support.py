"""The support half of the embedded corpus: problems, cues, and what each strategy says about a seeker's facts."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from pess_hf.data.strategies import STRATEGIES

Turn = dict[str, str | None]
MAX_TURNS = 12
#: How often a supporter takes another strategy than the seeker's words ask for.
_OFF_CUE = 0.1


@dataclass(frozen=True)
class Told:
    """One fact of a seeker: how it is told, its persona sentence, and the noun phrase that a supporter makes of it."""

    utterance: str
    persona: str
    activity: str


@dataclass(frozen=True)
class Problem:
    """What troubles a seeker: the label, the name a supporter gives it, the situation and the opening words."""

    label: str
    name: str
    situation: str
    openings: tuple[str, ...]


PROBLEMS = (
    Problem(
        "work stress",
        "the pressure at work",
        "My workload doubled after two people left and I cannot keep up.",
        ("Work is eating me alive lately.", "My boss piles one task after the other on me."),
    ),
    Problem(
        "breakup",
        "the breakup",
        "My partner left me after four years and I do not know how to go on.",
        ("My partner walked out on me.", "We split up and the place feels empty now."),
    ),
    Problem(
        "loneliness",
        "being on your own",
        "I hardly know anybody here and nobody calls me.",
        ("Nobody has called me in weeks.", "I feel like I have no one to talk to."),
    ),
    Problem(
        "exam pressure",
        "studying for the exams",
        "Finals are close and I fail every mock test.",
        ("I am going to fail my finals.", "I cannot get a single thing into my head before the exams."),
    ),
    Problem(
        "family conflict",
        "the fighting at home",
        "My parents and I shout at each other every day.",
        ("There is nothing but shouting at our house.", "My parents and I had another huge fight."),
    ),
    Problem(
        "money trouble",
        "the lack of money",
        "The bills are higher than what I earn and the rent is late.",
        ("I cannot pay the rent this month.", "The bills on my table keep growing."),
    ),
    Problem(
        "sleep problems",
        "the lack of sleep",
        "I lie awake until four and drag myself through the day.",
        ("I have not slept properly for a month.", "I lie awake every night until four."),
    ),
)

#: Emotion label -> the words that seeker and supporter use for it.
EMOTIONS = {
    "anxiety": "anxious",
    "sadness": "sad",
    "anger": "angry",
    "shame": "ashamed",
    "exhaustion": "exhausted",
    "guilt": "guilty",
}

#: Strategy -> what a seeker says that asks for it.
CUES = {
    "Question": ("It is hard to explain.", "I do not know where to start."),
    "Restatement or Paraphrasing": ("Everything comes at once.", "I hope this makes any sense to you."),
    "Reflection of feelings": ("I feel so {feeling}.", "Inside I am just {feeling}."),
    "Self-disclosure": ("Have you ever been through this?", "You probably never had this."),
    "Affirmation and Reassurance": ("Maybe I am simply too weak.", "I do not think I can manage."),
    "Providing Suggestions": ("What should I do?", "Do you have an idea what could help?"),
    "Information": ("Is that normal?", "Does this happen to other people?"),
    "Others": ("Thank you for listening.", "Thanks, I have to go now."),
}

#: Strategy -> what a supporter says; {activity} comes from the fact told first or last, see `_fact_for`.
REPLIES = {
    "Question": ("Does {activity} still give you some peace?", "When did {activity} last make you smile?"),
    "Restatement or Paraphrasing": (
        "So even {activity} does not take your mind off {problem}.",
        "If I get you right, {problem} follows you everywhere, even to {activity}.",
    ),
    "Reflection of feelings": (
        "You sound really {feeling} about {problem}.",
        "I can tell that {problem} leaves you {feeling}, and {activity} is not enough to change it.",
    ),
    "Self-disclosure": (
        "I went through something like {problem} myself, and {activity} would have helped me.",
        "Last year I was {feeling} as well, I wish I had thought of {activity}.",
    ),
    "Affirmation and Reassurance": (
        "You are stronger than you think, {activity} shows it.",
        "You will get through {problem}, someone who cares for {activity} can do that.",
    ),
    "Providing Suggestions": (
        "How about {activity} this evening, just for half an hour?",
        "You could plan {activity} every day as a break from {problem}.",
    ),
    "Information": (
        "Many people feel {feeling} about {problem}, and things like {activity} bring the stress down.",
        "It is common, and small things such as {activity} are known to help.",
    ),
    "Others": ("You are welcome, enjoy {activity}.", "Take care, and say hello to me after {activity}."),
}

#: What a supporter says while no fact is known.
_FIRST_REPLIES = {
    "Question": ("What about {problem} troubles you most?", "How long has {problem} been going on?"),
    "Reflection of feelings": ("That must make you feel {feeling}.", "I hear how {feeling} you are."),
    "Others": ("I am here, take your time.", "Please go on, I am listening."),
}
_WELCOMES = ("Hello, what would you like to talk about?", "Hi, how are you feeling today?")


def support_dialogue(facts: list[Told], random: Random) -> dict[str, Any]:
    """Make one support dialogue around the seeker's facts.

    Args:
        facts: Two to four facts in the order in which they are told.
        random: The source of every choice.

    Returns:
        A support row without `dialogue_id`; `persona[t]` holds the persona sentences of the facts told before turn t.
    """
    problem, emotion = random.choice(PROBLEMS), random.choice(sorted(EMOTIONS))
    words = {"problem": problem.name, "feeling": EMOTIONS[emotion]}
    turns = _opening(problem, words, random)
    known: list[list[str]] = [[] for _ in turns]
    for n in range(len(facts)):
        added = _exchange(facts[: n + 1], words, random, spare=MAX_TURNS - len(turns) - 2 * (len(facts) - n))
        before, after = [fact.persona for fact in facts[:n]], [fact.persona for fact in facts[: n + 1]]
        known += [before, *[after] * (len(added) - 1)]
        turns += added
    if len(turns) <= MAX_TURNS - 2 and random.random() < 0.6:
        turns += [_seeker(random.choice(CUES["Others"])), _reply("Others", facts, words, random)]
        known += [[fact.persona for fact in facts]] * 2
    return {
        "situation": problem.situation,
        "emotion_type": emotion,
        "problem_type": problem.label,
        "turns": turns,
        "persona": [list(sentences) for sentences in known],
    }


def _opening(problem: Problem, words: dict[str, str], random: Random) -> list[Turn]:
    welcome = [_supporter("Question", random.choice(_WELCOMES))] if random.random() < 0.4 else []
    strategy = random.choice(sorted(_FIRST_REPLIES))
    reply = random.choice(_FIRST_REPLIES[strategy]).format(**words)
    return [*welcome, _seeker(random.choice(problem.openings)), _supporter(strategy, reply)]


def _exchange(told: list[Told], words: dict[str, str], random: Random, spare: int) -> list[Turn]:
    """The seeker tells the last of `told` and gives a cue, sometimes as a turn of its own; the supporter answers."""
    wanted = random.choice([strategy for strategy in STRATEGIES if strategy != "Others"])
    cue = random.choice(CUES[wanted]).format(**words)
    fact = told[-1].utterance
    own_turn = spare > 0 and random.random() < 0.25
    seeker = [_seeker(fact), _seeker(cue)] if own_turn else [_seeker(f"{fact} {cue}")]
    strategy = random.choice(STRATEGIES) if random.random() < _OFF_CUE else wanted
    return [*seeker, _reply(strategy, told, words, random)]


def _reply(strategy: str, told: list[Told], words: dict[str, str], random: Random) -> Turn:
    activity = _fact_for(strategy, told).activity
    return _supporter(strategy, random.choice(REPLIES[strategy]).format(activity=activity, **words))


def _fact_for(strategy: str, told: list[Told]) -> Told:
    """Encouragement goes back to what was told first, everything else takes up what was told last."""
    first = strategy in ("Affirmation and Reassurance", "Providing Suggestions", "Others")
    return told[0] if first else told[-1]


def _seeker(text: str) -> Turn:
    return {"speaker": "seeker", "text": text, "strategy": None}


def _supporter(strategy: str, text: str) -> Turn:
    return {"speaker": "supporter", "text": text, "strategy": strategy}
