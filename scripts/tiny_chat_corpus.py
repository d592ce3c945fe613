"""Turns the lower-case TinyStories sample into proper stories and finds the subject of each."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_SPEECH = (
    "said says asked asks cried cries shouted shouts replied replies answered answers called calls yelled yells "
    "whispered whispers exclaimed laughed screamed sang thought giggled begged told added smiled agreed explained "
    "wondered repeated barked roared"
).split()
_SPEECH_NEXT = re.compile(rf"\W*(?:[\w'-]+ ){{0,4}}?(?:{'|'.join(_SPEECH)})\b")
_TITLES = {"mr", "mrs", "ms", "dr", "miss"}
_ALWAYS = set(
    "i i'm i'll i've i'd mr mrs ms dr monday tuesday wednesday thursday friday saturday sunday january february april june "
    "july august september october november december christmas halloween".split()
)
_KNOWN_NAMES = set(
    "lily tim tom ben sara sue max anna mia timmy tommy jack john jimmy molly bob sam lila lucy billy jane joe mary sally "
    "bobby emma sarah amy kitty benny ella lisa mike jim jill annie ellie johnny peter lola leo fred jen tina nina zoe "
    "danny susie katie mark alice jenny bella kate andy lilly jake amelia charlie harry henry george nick daisy tony anne "
    "emily olivia sophie sophia ava luke noah ryan jerry roger momo mimi fifi teddy freddy rob maggie betty polly".split()
)
_AMBIGUOUS = {"mark", "rob", "kitty", "teddy", "daisy", "nick"}
_PARENTS = {"mom", "dad", "mommy", "daddy", "mama", "papa", "mum", "mummy", "grandma", "grandpa", "granny"}
_DETERMINERS = set(
    "a the his her their your my our this that every each another loving old new little kind".split()
)
_NAMED = re.compile(r"\b(?:named|called|name is|name was) ([a-z][a-z']+)(?: and ([a-z][a-z']+))?")
_GENERIC = set(
    "day time end other way thing things lot moral story one morning night next same first last rest world best top "
    "bottom middle side fun idea problem help name water ground floor air mom dad people friend friends family man woman "
    "boy girl kids children child mommy daddy hand hands eyes face head home inside outside little big girls boys mum "
    "mama papa others front back bit lesson job place room work game food mess surprise mouth arms nose ears two three "
    "parents brother sister feet voice noise sound colors hole tummy owner pieces part secret person corner fire hair "
    "edge toys while moment week again right left new old her him them me you it us he she they and after because out when for in on to with from that who what "
    "is was".split()
)


@dataclass(frozen=True)
class CorpusStory:
    """A story of the sample with proper capitals and its main nouns, the most frequent one first."""

    text: str
    nouns: list[str]


def sentence_case(text: str, names: frozenset[str] = frozenset()) -> str:
    """Sets capitals at the starts of sentences and of direct speech, on `i` and on the names."""
    out: list[str] = []
    capital = True
    in_quote = False
    resumes = False  # direct speech that goes on after `said he,`
    previous = ""
    for match in re.finditer(r"[A-Za-z]+(?:'[A-Za-z]+)*|[^A-Za-z]", text):
        token = match.group()
        if token.isalpha() or "'" in token[1:]:
            base = token[:-2] if token.endswith("'s") else token
            parent = base in _PARENTS and previous not in _DETERMINERS and not previous.endswith("'s")
            if capital or base in names or token in _ALWAYS or parent:
                token = token[0].upper() + token[1:]
            capital = previous == "#title"
            previous = match.group().lower()
        elif token == '"':
            in_quote = not in_quote
            if in_quote:
                capital = not resumes
            elif out and out[-1] in "!?":
                capital = _SPEECH_NEXT.match(text, match.end()) is None
            elif out and out[-1] == ",":
                capital, resumes = False, True
        elif token in ".!?":
            resumes = False
            capital = not (token == "." and previous in _TITLES)
        elif token == "\n":
            capital, in_quote, resumes = True, False, False
        elif token.isdigit():
            capital = False
        out.append(token)
    return "".join(out)


def proper_story(story: str) -> str:
    """Restores the capitals of one lower-case story."""
    found = {name for groups in _NAMED.findall(story) for name in groups if name}
    found = {
        name
        for name in found
        if story.count(f" {name}") > 1 and f"the {name}" not in story and f"a {name}" not in story
    }
    words = set(re.findall(r"[a-z]+", story))
    found |= {name for name in (_KNOWN_NAMES - _AMBIGUOUS) & words if f"the {name}" not in story}
    text = re.sub(r" +", " ", story.replace("“", '"').replace("”", '"').replace("’", "'"))
    return sentence_case(text, frozenset(found - _GENERIC))


def split_stories(text: str) -> list[str]:
    """Splits the sample: a line that follows a line of text directly starts a new story."""
    stories: list[list[str]] = []
    previous = ""
    for line in text.split("\n"):
        if not stories or (line.strip() and previous.strip()):
            stories.append([])
        if line.strip():
            stories[-1].append(line.strip())
        previous = line
    return ["\n\n".join(story) for story in stories]


def _usable(story: str) -> bool:
    """Keeps whole stories of plain text of a usual length."""
    return (
        250 <= len(story) <= 1500
        and story[-1] in '.!?"'
        and story.isascii()
        and story.count('"') % 2 == 0
        and not re.search(r"[<>|@#$*_]", story)
    )


def load_stories(corpora: Path) -> list[CorpusStory]:
    """Reads the TinyStories sample of the folder."""
    raw = [s for s in split_stories((corpora / "tinystories_sample_4M.txt").read_text("utf-8")) if _usable(s)]
    joined = "\n".join(raw)
    with_article = Counter(re.findall(r"\b(?:the|a|an) ([a-z]+)", joined))
    before_stop = Counter(re.findall(r"\b(?:the|a|an) ([a-z]+)[.,!?]", joined))
    # An adjective seldom stands right before a comma or the end of a sentence: that tells the nouns.
    nouns = {
        w for w, n in with_article.items() if n >= 6 and before_stop[w] / n >= 0.12 and w not in _GENERIC
    }
    stories = []
    for story in raw:
        words = Counter(re.findall(r"\b(?:the|an?|his|her|their) (?:[a-z]+ )??([a-z]+)\b", story))
        ranked = [word for word, count in words.most_common() if word in nouns and count >= 2]
        stories.append(CorpusStory(proper_story(story), ranked[:2]))
    return stories


def load_instructions(corpora: Path) -> list[str]:
    """Reads the short instructions of the self-instruct files: questions that are too hard for this model."""
    found = []
    for name in ("self_instruct_seed_tasks.jsonl", "self_instruct_user_oriented.jsonl"):
        for line in (corpora / name).read_text("utf-8").splitlines():
            instruction = str(json.loads(line)["instruction"]).strip()
            if len(instruction) <= 160 and "\n" not in instruction and instruction.isascii():
                found.append(instruction)
    return found
