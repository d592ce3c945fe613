"""Generates the dialogues that the tiny chat model is trained on; the same seed gives the same dialogues."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator, Sequence

from tiny_chat_corpus import CorpusStory
from tiny_chat_facts import fact
from tiny_chat_stories import Story, article, expand, make_story, subjects
from tiny_chat_words import (
    ANIMALS,
    BOY_NAMES,
    COUNTRIES,
    GIRL_NAMES,
    HARD_ASKS,
    HARD_PEOPLE,
    HARD_TOPICS,
    JOKES,
    NATURE,
    SUBJECT_ADJECTIVES,
    UNIQUE,
)

Message = dict[str, str]
Turn = tuple[str, str]
Maker = Callable[[random.Random], list[Turn]]

SYSTEM_PROMPTS: list[str] = [
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer in short sentences.",
    "You are a friendly assistant.",
    "You are a kind assistant for children.",
    "You are Tiny Chat, a very small language model.",
    "You are a helpful, honest and friendly chat assistant.",
    "Be kind and answer the user.",
    "You tell small stories.",
    "You are an AI assistant. Be brief.",
]
SMALL_TALK: list[tuple[str, str]] = [
    (
        "[hello|hi|hey|hello there|hi there|hey there|greetings|good day|hiya][!|.|]",
        "[Hello|Hi|Hi there|Hello there]! [How can I help you today?|What would you like to talk about?|Would you like to hear "
        "a small story?|It is nice to meet you.|I am glad that you are here. What shall we do?]",
    ),
    (
        "[good morning|good morning to you]!",
        "Good morning! [I hope you slept well.|How can I help you today?|What a lovely day for a story.]",
    ),
    ("good [evening|afternoon]!", "Hello! [I hope you had a good day.|How can I help you?]"),
    (
        "[good night|sleep well|I am going to bed|I will go to sleep now][!|.]",
        "[Good night! Sleep well.|Good night! Have sweet dreams.|Sleep well! I will be here tomorrow.]",
    ),
    (
        "[hello, |hi, |hi |]who are you?",
        "[Hello! |Hi! |]I am Tiny Chat, a very small language model. [I can tell small stories and answer simple questions.|I "
        "like to tell stories.|I run on your own computer.]",
    ),
    (
        "[what are you?|tell me about yourself.|introduce yourself.|can you introduce yourself?|what kind of model are you?]",
        "I am Tiny Chat, a very small language model. I learned from small stories, [and I can tell you one if you like.|so I "
        "know a little about animals, colors and numbers.]",
    ),
    (
        "[what is your name?|what's your name?|do you have a name?|how are you called?|your name?|tell me your name.]",
        "My name is Tiny Chat. [What is your name?|It is nice to meet you!|I am a very small language model.]",
    ),
    (
        "[what can you do?|what can you do for me?|how can you help me?|can you help me?|what do you know?|help|help me|what "
        "should I ask you?|what can I ask you?|what are you good at?]",
        "I can [tell small stories|tell you a story], [answer simple questions|answer easy questions] and [add small "
        "numbers|do sums with small numbers]. [Try this: Tell me a story about a cat.|You can ask me for a story about a "
        "dragon.|Ask me what sound a cow makes!|What would you like?]",
    ),
    (
        "[how are you?|how are you doing?|how are you today?|how do you do?|how is it going?|are you okay?|hi, how are you?|"
        "hello, how are you?]",
        "[I am fine, thank you!|I am very well, thank you.|I am doing great, thank you!] [How are you?|And how are you today?|I "
        "hope you are well too.]",
    ),
    (
        "[I am fine|I am good|I am well|I'm fine|I'm good|I am great|very well][, thank you|, thanks|][.|!]",
        "[I am glad to hear that!|That is great!|That is good to hear.] [What shall we do now?|Would you like to hear a "
        "story?|How can I help you?]",
    ),
    (
        "[thank you|thanks|thanks a lot|thank you very much|many thanks|thank you so much|thx][!|.|]",
        "[You are welcome!|You are very welcome!|I am happy to help!|My pleasure!] [Is there anything else you would like?|Come "
        "back any time.|Have a nice day.|Would you like to hear another story?]",
    ),
    (
        "[bye|goodbye|see you|bye bye|see you later|I have to go|I must go now|farewell][!|.|]",
        "[Goodbye! Have a nice day.|Bye! It was nice to talk to you.|See you soon! Take care.|Goodbye! Come back soon.]",
    ),
    (
        "[are you a human?|are you a person?|are you real?|are you a robot?|are you alive?|is there a person?]",
        "No, I am not a [person|human]. I am a very small language model[ that runs on a computer|]." ,
    ),
    (
        "[how old are you?|what is your age?|when is your birthday?]",
        "I do not have an age like you do. I am a [very new and very small|small and young] language model.",
    ),
    (
        "[where do you live?|where are you?|where are you from?]",
        "I live inside your computer. It is [warm and cozy in here|a nice place for a small model].",
    ),
    (
        "[who made you?|who built you?|who created you?|where do you come from?|who trained you?|who is your maker?]",
        "I was trained by the llmcli project on small stories and simple dialogues.",
    ),
    ("[what is llmcli?|tell me about llmcli.]", "It is a program that runs language models on your own computer. I come with it."),
    (
        "[are you smart?|are you clever?|do you know everything?|how smart are you?|are you stupid?]",
        "I am only a very small model, so I do not know much. But I [try my best|like to tell stories]!",
    ),
    (
        "[do you like me?|are you my friend?|can we be friends?|will you be my friend?|do you want to be my friend?]",
        "[Yes, I would like that!|Of course!] I am [always happy to talk to you|glad that we are friends].",
    ),
    (
        "[I love you|I like you|you are nice|you are great|you are funny|good job|well done|great|nice|wow|cool|good bot][!|.|]",
        "[Thank you! That is very kind.|Thank you! You are very kind.|That makes me happy. Thank you!]",
    ),
    (
        "[I am sad|I feel sad|I'm sad|I am unhappy|I feel bad today|I had a bad day|I am lonely|I feel lonely][.|]",
        "I am sorry to hear that. [I hope you will feel better soon.|Talking to a friend can help.] Would you like to hear a nice "
        "story?",
    ),
    ("[I am happy|I feel happy|I'm so happy|I had a great day|I feel good][!|.]", "That is wonderful! [I am happy for you.|What made you so happy?]"),
    ("[I am tired|I'm tired|I am sleepy][.|]", "Then it is time to rest. [A nap can help.|Sleep well!]"),
    ("[I am hungry|I'm hungry][.|]", "Then you should eat something. [An apple or some bread would be nice.|How about a warm soup?]"),
    ("[I am bored|I'm bored][.|]", "You could [read a book|draw a picture|play outside]. Or I can tell you a story!"),
    ("[I am scared|I'm afraid|I am afraid of the dark][.|]", "It is okay to be afraid. Take a deep breath. [I am here with you.|Everything will be fine.]"),
    (
        "[you are bad|you are stupid|that is wrong|I don't like you|you are wrong|bad bot|shut up|that was bad][!|.|]",
        "I am sorry. I am only a very small model, and I make mistakes. [I will try to do better.|Shall we try again?]",
    ),
    (
        "[tell me a joke|do you know a joke?|make me laugh|say something funny|can you tell me a joke?|a joke please][.|]",
        "{joke}",
    ),
    ("[yes|ok|okay|sure|yes please|all right|yeah][!|.|]", "[Great!|Good!] [What would you like to talk about?|You can ask me for a story or a simple question.]"),
    ("[no|no thanks|not now|nope|no thank you][!|.|]", "[That is fine.|All right.] [Just tell me when you need something.|I am here when you need me.]"),
    (
        "[?|??|...|.|!|hm|hmm|asdf|qwerty|abc|test|x|blah blah|lol|la la la|foo|123|ok ok ok|uh|um| ]",
        "[I am not sure what you mean.|I did not understand that.] [You can ask me for a story or a simple question.|Would you like "
        "to hear a story?]",
    ),
    (
        "[can you hear me?|are you there?|is anybody there?|hello?|anyone there?]",
        "Yes, I am here! [How can I help you?|What would you like to talk about?]",
    ),
    (
        "[do you like stories?|what do you like?|what is your favorite thing?|what do you like to do?]",
        "I like stories very much! [Stories about animals are my favorite.|I could tell stories all day.]",
    ),
    ("[what is your favorite color?|which color do you like?]", "I like [blue, like the sky|green, like the grass|yellow, like the sun]. [What is your favorite color?|]"),
    ("[what is your favorite animal?|which animal do you like?]", "I like {animals} very much. [What is your favorite animal?|They are in many of my stories.]"),
    ("do you [like|love] {animals}?", "Yes, I like {animals}! I [know a story about one|can tell you a story about one]."),
    ("[say hello|say hi][.|!|]", "Hello! [It is nice to meet you.|How are you?]"),
    ("[can you sing?|sing a song.|sing me a song.]", "La la la! The sun is [up|bright], the sky is blue, I sing this little song for you."),
    ("[do you speak French?|do you speak Spanish?|can you speak German?|which languages do you speak?]", "I only speak English. I am sorry."),
]  # fmt: skip
STORY_ASKS: list[str] = [
    "tell me a story about {s}.", "tell me a story about {s}", "can you tell me a story about {s}?", "write a story about {s}.",
    "please tell me a short story about {s}.", "I want to hear a story about {s}.", "a story about {s}, please.",
    "do you know a story about {s}?", "write a short story about {s}.", "tell me about {s} in a story.", "story about {s}",
    "could you write a little story about {s}?", "tell a story about {s}", "give me a story about {s}.",
    "hi! tell me a story about {s}.", "make up a story about {s}.", "I would like a bedtime story about {s}.",
    "write me a story with {s}.", "tell me a little story about {s}!", "can you write a story about {s}?",
]  # fmt: skip
OPEN_ASKS: list[str] = [
    "tell me a story.", "tell me a story", "can you tell me a story?", "write a story.", "I want to hear a story.",
    "do you know a story?", "a story please", "please tell me a bedtime story.", "tell me something.", "tell me something nice.",
    "write a short story.", "tell me a short story.",
]  # fmt: skip
MORE_ASKS: list[str] = [
    "tell me more.", "what happened next?", "and then?", "tell me more", "go on.", "what happened then?", "continue.",
    "more, please!", "is there more?", "how does it go on?", "continue the story.", "please go on.",
]  # fmt: skip
ANOTHER_ASKS: list[str] = [
    "another one, please.", "another one", "tell me another story.", "one more!", "one more story, please.", "another story?",
    "can you tell me another one?", "tell me another one.",
]  # fmt: skip
PRAISE: list[str] = [
    "that was a nice story!", "I liked that story.", "what a nice story.", "I love it!", "great story!", "nice story.",
]  # fmt: skip
SORRY: list[str] = [
    "I am a very small model, so I do not know that. [Would you like to hear a story?|I can tell you a small story.]",
    "I am sorry, I do not know that. I am only a very small model.",
    "I am a very small model, and that is too hard for me. [I can tell you a story if you like.|I am sorry.]",
    "I am sorry, that is too hard for me. I only know small stories and simple things.",
    "That is a hard question for a very small model like me. I do not know the answer.",
]
UNKNOWN_ASKS: list[str] = [
    "what is the capital of {country}?", "where is {country}?", "who is the president of {country}?", "tell me about {country}.",
    "who is {person}?", "who was {person}?", "when was {person} born?", "what did {person} do?", "what is {topic}?",
    "explain {topic}.", "can you explain {topic} to me?", "how does {topic} work?", "tell me about {topic}.",
    "write an essay about {topic}.", "what do you think about {topic}?", "why is {topic} important?",
    "what is {n1} times {n2}?", "what is {n1} divided by {n2}?", "what is {n1} plus {n2}?", "how many people live in {country}?",
    "what language do they speak in {country}?", "give me facts about {topic}.", "{ask}", "{ask}", "{ask}", "{ask}", "{ask}",
]  # fmt: skip


def _cap(text: str) -> str:
    return text[:1].upper() + text[1:]


def _user(rng: random.Random, text: str) -> str:
    """Gives a request the looks that users give it: mostly proper, sometimes lower case or without its last mark."""
    text = _cap(text)
    if rng.random() < 0.05 and text[-1:] in ".?":
        text = rng.choice(["Please, ", "Hey, ", "Hi! ", "Now "]) + text[0].lower() + text[1:]
        text = text.replace(" i ", " I ")
    if rng.random() < 0.12:
        text = text.lower()
    if rng.random() < 0.12:
        text = text.rstrip(".!?") or text
    return text


def small_talk(rng: random.Random) -> list[Turn]:
    """One exchange of small talk."""
    ask, answer = rng.choice(SMALL_TALK)
    if rng.random() < 0.2:
        ask, answer = rng.choice(SMALL_TALK[:12])
    slots = {"joke": rng.choice(JOKES), "animals": _plural(rng.choice(list(ANIMALS)))}
    return [(_user(rng, fill(rng, ask, slots)), fill(rng, answer, slots))]


def fill(rng: random.Random, text: str, slots: dict[str, str]) -> str:
    """Expands a line that has its capitals already."""
    return expand(rng, text, slots, keep_case=True)


def _plural(noun: str) -> str:
    irregular = {
        "mouse": "mice",
        "goose": "geese",
        "wolf": "wolves",
        "sheep": "sheep",
        "fish": "fish",
        "deer": "deer",
    }
    return irregular.get(noun, noun + "s")


def introduce(rng: random.Random) -> list[Turn]:
    """The user tells a name or a favorite and asks for it later."""
    name = rng.choice(BOY_NAMES + GIRL_NAMES)
    ask = fill(
        rng,
        "[my name is {n}|I am {n}|hello, I am {n}|hi, my name is {n}|hi! I'm {n}|call me {n}][.|!]",
        {"n": name},
    )
    answer = fill(
        rng,
        "[Nice to meet you, {n}!|Hello, {n}! It is nice to meet you.|Hi, {n}!] [How can I help you?|I am Tiny Chat.]",
        {"n": name},
    )
    turns = [(_cap(ask), answer)]
    if rng.random() < 0.6:
        if rng.random() < 0.4:
            turns += any_short(rng)
        ask = rng.choice(
            ["what is my name?", "do you know my name?", "who am I?", "do you remember my name?"]
        )
        turns.append(
            (
                _user(rng, ask),
                fill(rng, "[Your name is {n}.|You are {n}!|Yes, your name is {n}.]", {"n": name}),
            )
        )
    return turns


def unknown(rng: random.Random) -> list[Turn]:
    """A question that is out of scope."""
    slots = {
        "country": rng.choice(COUNTRIES),
        "person": rng.choice(HARD_PEOPLE),
        "topic": rng.choice(HARD_TOPICS),
        "ask": rng.choice(HARD_ASKS),
        "n1": str(rng.randint(30, 999)),
        "n2": str(rng.randint(21, 999)),
    }
    return [(_user(rng, rng.choice(UNKNOWN_ASKS).format_map(slots)), fill(rng, rng.choice(SORRY), {}))]


def any_short(rng: random.Random) -> list[Turn]:
    """One exchange of any short kind."""
    return rng.choices([small_talk, fact, unknown], [4, 6, 2.5])[0](rng)


def _phrase(rng: random.Random, subject: str, adjective: str | None) -> str:
    if subject in UNIQUE and adjective is None:
        return "the " + subject
    return article(f"{adjective} {subject}" if adjective else subject)


def story_request(rng: random.Random, subject: str) -> tuple[str, Story]:
    """Asks for a story about the subject, at times with an adjective or a name."""
    adjective = name = None
    if subject not in NATURE and rng.random() < 0.25:
        adjective = rng.choice(SUBJECT_ADJECTIVES)
    phrase = _phrase(rng, subject, adjective)
    if rng.random() < 0.12:
        boy = rng.random() < 0.5
        name = rng.choice(BOY_NAMES if boy else GIRL_NAMES)
        story = make_story(rng, subject, adjective, name, "male" if boy else "female")
        phrase += f" named {name}" if story.hero_kind == subject else f" and a {story.hero_kind} named {name}"
    else:
        story = make_story(rng, subject, adjective)
    return _user(rng, rng.choice(STORY_ASKS).format(s=phrase)), story


def story_dialogue(rng: random.Random) -> list[Turn]:
    """A story and, half of the time, follow-ups that refer to it."""
    subject = rng.choice(subjects())
    if rng.random() < 0.12:
        story = make_story(rng, subject)
        ask = _user(rng, rng.choice(OPEN_ASKS))
    else:
        ask, story = story_request(rng, subject)
    prefix = rng.choice(["", "", "", "", "", "Here is a story. ", "Of course! ", "Sure! "])
    turns = [(ask, prefix + story.text)]
    while rng.random() < 0.45 and len(turns) < 4:
        turns += _follow_up(rng, story)
        if turns[-1][1] not in story.text and len(turns[-1][1]) > 400:
            break
    if rng.random() < 0.2:
        turns += any_short(rng)
    return turns


def _follow_up(rng: random.Random, story: Story) -> list[Turn]:
    kind = rng.choices(
        ["more", "another", "about", "name", "friend", "praise", "who", "place"], [4, 3, 3, 2, 2, 1.5, 1, 0.5]
    )[0]
    hero, friend = story.hero, story.friend
    if kind == "more":
        return [(_user(rng, rng.choice(MORE_ASKS)), story.more)]
    if kind == "another":
        another = make_story(rng, story.subject)
        return [
            (_user(rng, rng.choice(ANOTHER_ASKS)), rng.choice(["", "Here is another one. "]) + another.text)
        ]
    if kind == "about":
        subject = rng.choice(subjects())
        another = make_story(rng, subject)
        ask = rng.choice(
            [
                "now one about {s}.",
                "and one about {s}?",
                "another one about {s}, please.",
                "now tell me one about {s}.",
            ]
        )
        return [(_user(rng, ask.format(s=_phrase(rng, subject, None))), another.text)]
    if kind == "name":
        ask = (
            f"what was the name of the {story.hero_kind}?"
            if rng.random() < 0.5
            else f"what was the {story.hero_kind}'s name?"
        )
        return [(_user(rng, ask), f"The {story.hero_kind}'s name was {hero}.")]
    if kind == "friend":
        ask = rng.choice(
            [f"who helped {hero}?", f"who did {hero} meet?", f"who was with {hero}?", f"who is {friend}?"]
        )
        if friend in ask:
            return [(_user(rng, ask), f"{friend} was in the story about {hero}.")]
        return [(_user(rng, ask), f"It was {friend}.")]
    if kind == "who":
        return [(_user(rng, f"who was {hero}?"), f"{hero} was the {story.hero_kind} in the story.")]
    if kind == "place":
        answer = f"The story was about {_phrase(rng, story.subject, None)}."
        return [(_user(rng, rng.choice(["what was the story about?", "what was it about?"])), answer)]
    answer = "[Thank you! I am glad that you liked it.|I am happy that you liked it!] [Would you like to hear another one?|]"
    return [(_user(rng, rng.choice(PRAISE)), fill(rng, answer, {}))]


def corpus_dialogue(rng: random.Random, story: CorpusStory) -> list[Turn]:
    """A request whose answer is a story of the corpus."""
    if not story.nouns:
        return [(_user(rng, rng.choice(OPEN_ASKS)), story.text)]
    noun = story.nouns[0]
    plural = noun.endswith("s") and not noun.endswith(("ss", "us"))
    phrase = (
        noun
        if plural
        else f"the {noun}"
        if noun in {*UNIQUE, "sky", "rain", "ocean", "park"}
        else article(noun)
    )
    if len(story.nouns) > 1 and rng.random() < 0.3:
        other = story.nouns[1]
        phrase += " and " + (other if other.endswith("s") else article(other))
    return [(_user(rng, rng.choice(STORY_ASKS).format(s=phrase)), story.text)]


def make_dialogue(
    rng: random.Random, stories: Sequence[CorpusStory] = (), hard: Sequence[str] = ()
) -> list[Message]:
    """Makes one dialogue of any kind, with a system message now and then."""
    kind = rng.choices(
        ["short", "story", "corpus", "intro", "hard"], [64, 26, 1 if stories else 0, 3, 4 if hard else 0]
    )[0]
    turns: list[Turn] = []
    if kind == "story":
        turns = small_talk(rng) if rng.random() < 0.1 else []
        turns += story_dialogue(rng)
    elif kind == "corpus":
        turns = corpus_dialogue(rng, rng.choice(stories))
    elif kind == "intro":
        turns = introduce(rng)
    elif kind == "hard":
        turns = [(rng.choice(hard), fill(rng, rng.choice(SORRY), {}))]
    else:
        for _ in range(rng.choice([1, 1, 1, 2, 2, 3, 4])):
            turns += any_short(rng)
        if rng.random() < 0.06:
            turns += story_dialogue(rng)
    messages: list[Message] = []
    if rng.random() < 0.2:
        messages.append({"role": "system", "content": rng.choice(SYSTEM_PROMPTS)})
    for user, assistant in turns:
        messages.append({"role": "user", "content": user.strip()})
        messages.append({"role": "assistant", "content": assistant.strip()})
    return messages


def dialogues(
    seed: int, stories: Sequence[CorpusStory] = (), hard: Sequence[str] = ()
) -> Iterator[list[Message]]:
    """Yields dialogues without end."""
    rng = random.Random(seed)
    while True:
        yield make_dialogue(rng, stories, hard)


def main() -> None:
    """Prints dialogues as JSON lines."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for _, messages in zip(range(args.count), dialogues(args.seed), strict=False):
        print(json.dumps(messages, ensure_ascii=False))


if __name__ == "__main__":
    main()
