"""Makes small stories from plots with many slots, for the dialogues of the tiny chat model.

A plot is text in which `[a|b]` stands for one of the choices and `{slot}` for a word that was drawn.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from tiny_chat_corpus import sentence_case
from tiny_chat_words import (
    ANIMALS,
    BOY_NAMES,
    EXTRA_ANIMALS,
    EXTRA_PEOPLE,
    EXTRA_THINGS,
    FANTASY,
    FEARS,
    FEELINGS,
    FOODS,
    GIRL_NAMES,
    HELPERS,
    LESSONS,
    LOST_THINGS,
    NATURE,
    PEOPLE,
    PET_NAMES,
    PLACES,
    QUIET_ANIMALS,
    SKILLS,
    SUBJECT_ADJECTIVES,
    THINGS,
    UNIQUE,
)

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_AN = re.compile(r"\b([Aa]) (?=(?!uni|use|one)[aeiou])")
_MALE = {
    "king",
    "prince",
    "knight",
    "pirate",
    "wizard",
    "boy",
    "grandfather",
    "fireman",
    "policeman",
    "snowman",
    "dwarf",
}
_FEMALE = {
    "woman",
    "queen",
    "princess",
    "fairy",
    "witch",
    "mermaid",
    "girl",
    "grandmother",
    "hen",
    "cow",
    "ladybug",
}


@dataclass(frozen=True)
class Story:
    """A story with what a later question may ask about it."""

    subject: str
    text: str
    hero: str
    hero_kind: str
    friend: str
    place: str
    more: str


def article(noun: str) -> str:
    """Returns the noun with a or an before it."""
    return ("an " if noun[0].lower() in "aeiou" and not noun.startswith(("uni", "one")) else "a ") + noun


def expand(rng: random.Random, text: str, slots: dict[str, str], keep_case: bool = False) -> str:
    """Draws the choices, fills the slots and sets the capitals at the starts of sentences."""
    while _CHOICE.search(text):
        text = _CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), text)
    text = re.sub(r" +", " ", text.format_map(slots)).strip()
    text = _AN.sub(r"\1n ", text)
    return text if keep_case else sentence_case(text)


OPENINGS: list[str] = [
    "[once upon a time|once|long ago|in a far land], there was {a_adj_kind} named {name}. {name} lived in {home}[.|.| and loved "
    "to eat {food}.]",
    "{name} was {a_adj_kind} who lived in {home}. [every day, {name} ate {food}.|everyone liked {name}.|{name} liked to "
    "play near {place}.]",
    "in {home}, there lived {a_adj_kind}. {his} name was {name}. [{name} liked {food} more than anything.|{he} was always "
    "{feeling} in the morning.|]",
    "there once was {a_adj_kind} called {name}. [{he} had a warm heart.|{he} loved {food}.|{he} lived in {home}.]",
]
HERO_PLOTS: list[tuple[str, str, str]] = [
    (
        "friend",
        "one [day|morning|sunny day], {name} went to {place} to [play|look around|find {food}]. But {he} was all alone, and "
        '{he} felt sad. "I wish I had a friend," {he} said.\n\n[just then|then], {name} [saw|met] {a_helper} named {friend}. '
        '"[hello|hi]! why are you sad?" asked {friend}. "I have nobody to play with," said {name}. {friend} smiled and '
        'said, "[you can play with me|then let us play together]!"\n\n[they ran and jumped all day|they played by {place2} '
        "until the sun went down|they laughed and played many games]. {name} was not alone anymore.",
        "the next day, {name} and {friend} met again at {place2}. they [built a little house out of sticks|shared {a_food}|"
        'looked for pretty stones]. "you are my best friend," said {name}. {friend} was very {feeling}.',
    ),
    (
        "help",
        "one day, {name} lost {his} {adj2} {lost}. {he} looked [everywhere|high and low]. first, {he} looked near {place}. it "
        "was not there. then, {he} looked by {place2}. it was not there either. {name} sat down and [began to cry|felt very "
        'sad].\n\n{a_helper} named {friend} came by. "[what is wrong|why do you cry]?" asked {friend}. "I cannot find my '
        '{lost}," said {name}. "[do not worry|I will help you], we will look together," said {friend}.\n\nthey looked '
        '[under the leaves|behind a big rock|in the tall grass]. there it was! "thank you, {friend}!" said {name}. '
        "{name} was so {feeling} that {he} [danced|jumped up and down|gave {friend} a big hug].",
        "after that day, {name} always kept the {lost} in a safe place. one day, {friend} lost a {lost2}, and {name} helped "
        'to find it. "now we are even," said {friend}, and they both laughed.',
    ),
    (
        "brave",
        '{name} was afraid of {fear}. when the others went to {place}, {name} stayed at home. "I am too scared," {he} '
        'said.\n\none [night|day|evening], {name} heard a small voice. it was {a_helper} named {friend}. "help! I am stuck!" '
        "cried {friend}. {name} was afraid, but {he} [took a deep breath|closed {his} eyes and counted to three|thought of "
        '{his} friend]. then {he} ran to {place2} and helped {friend} out.\n\n"you are so brave!" said {friend}. {name} '
        "smiled. {he} was not afraid of {fear} anymore.",
        "soon everyone heard how brave {name} was. they had a party at {place} and ate {a_food}. when it was over, {name} "
        "walked home without being afraid of {fear} at all.",
    ),
    (
        "share",
        'one day, {name} found {a_food} near {place}. "this is all for me!" {he} said. then {a_helper} named {friend} came '
        'along. {friend} was very hungry. "may I have a little bit?" asked {friend}.\n\n{name} thought for a moment. {he} '
        '[looked at the food|looked at {friend}\'s sad eyes]. "yes, [we can share|you can have half of it]," said {name}. '
        'they sat down by {place2} and ate together. it was [delicious|very good|the best meal ever].\n\n"thank you for '
        'sharing," said {friend}. {name} felt {feeling}.',
        'the next day, {friend} came back with {a_food2}. "you shared with me, so now I will share with you," said {friend}. '
        "{name} and {friend} ate it all and took a long nap.",
    ),
    (
        "try",
        '{name} wanted to learn to {skill}. {he} tried [again and again|all day], but {he} could not do it. "I will never '
        'learn it," said {name} and sat down near {place}.\n\n{a_helper} named {friend} saw {him}. "[do not give up|it is '
        'hard at first]! I can show you," said {friend}. every day, they met at {place2} and practiced. on the first day, '
        "{name} made [many mistakes|a big mess]. on the second day, it went a little better.\n\non the third day, {name} "
        "could {skill}! everyone [clapped|cheered], and {name} felt very {feeling}.",
        "now that {name} could {skill}, {he} wanted to teach it to others. many friends came to {place}. {name} showed them "
        "how to {skill}, and soon they all did it together.",
    ),
    (
        "honest",
        "one day, {name} played with a {lost} that belonged to {friend}, {a_helper}. {name} was not careful, and the {lost} "
        'broke. {name} [was scared|felt bad] and hid it behind a tree near {place}.\n\n"have you seen my {lost}?" asked '
        "{friend}. at first, {name} said no. but {he} [could not sleep that night|felt worse and worse]. in the morning, {he} "
        'went to {friend} and said, "I am sorry. I broke your {lost}."\n\n{friend} was [sad|quiet] for a moment. then {friend} '
        'said, "thank you for telling me the truth. we can fix it together." they worked by {place2} until the {lost} was '
        "[as good as new|whole again].",
        "from that day on, {name} was careful with the things of others. {friend} even let {him} play with the {lost} again. "
        "they took turns and had a lot of fun.",
    ),
    (
        "small",
        "one day, there was a big storm. the wind blew, and the rain fell on {place}. {name} was [safe|warm and dry] in {home}. "
        "but then {he} heard a cry. {a_helper} named {friend} was out in the rain and could not find the way home.\n\n{name} "
        '[opened the door|ran outside] and called, "[come here|come in]! you can stay with me!" {friend} came in, wet and '
        "cold. {name} gave {friend} a warm blanket and {a_food}.\n\nwhen the storm was over, the sun came out, and there was "
        'a rainbow over {place2}. "you saved me," said {friend}. {name} was {feeling}.',
        "later, {friend} took {name} home to meet the family. they all said thank you and gave {name} {a_food2}. {name} and "
        "{friend} watched the stars until it was time to sleep.",
    ),
    (
        "friend",
        "it was {name}'s birthday, but nobody said a word about it. {name} walked to {place}. nobody was there. {he} walked to "
        '{place2}. nobody was there either. "did everyone forget my birthday?" {name} said sadly.\n\nthen {name} came '
        'home and opened the door. "surprise!" shouted {friend} the {helper} and all the others. there was {a_food}, and '
        'there were [balloons|songs|games] for everyone. {friend} gave {name} a {adj2} {lost}.\n\n"this is the best '
        'birthday ever," said {name}. {he} was so {feeling}.',
        "after the party, {name} played with the new {lost} every day. when it was {friend}'s birthday, {name} made a surprise "
        "too. everyone came and ate {a_food2}.",
    ),
    (
        "help",
        "one day, {name} walked to {place}. on the way, {he} saw {a_helper} [in a deep hole|under a heavy branch|caught in a "
        'net]. "please help me," said the {helper}. "my name is {friend}, and I cannot get out."\n\n{name} pulled and '
        'pulled, but it was too hard. so {name} [called all {his} friends|found a long rope|found a strong stick]. "one, two, '
        'three, pull!" said {name}. at last, {friend} was free!\n\n{friend} gave {name} a {adj2} {lost} to say thank you. '
        "{name} went home and felt {feeling}.",
        "a week later, {name} fell into the water near {place2}. who came to help? it was {friend}! {friend} pulled {name} out. "
        '"you helped me, and now I helped you," said {friend}.',
    ),
    (
        "trip",
        "{name} had a dream. {he} wanted to see {place2}. so one morning, {he} packed {a_food} and started to walk. {he} went "
        "over the fields and past {place}. the road was long, and {his} feet [hurt|were tired].\n\n{he} met {a_helper} named "
        '{friend}. "where are you going?" asked {friend}. "to {place2}," said {name}. "I know the way! I will come with '
        'you," said {friend}. they walked and [sang songs|told each other stories|laughed a lot].\n\nwhen they came to {place2}, '
        "it was [beautiful|even nicer than in the dream]. they ate {a_food} together, and {name} was {feeling}.",
        '{name} and {friend} stayed there all day. in the evening, they walked home under the stars. "where shall we go '
        'tomorrow?" asked {friend}. {name} laughed. "tomorrow we will sleep!"',
    ),
    (
        "race",
        'one day, there was a race from {place} to {place2}. {friend} the {helper} was the fastest of all. "I will win," said '
        "{friend}. {name} was slow, but {he} wanted to run too.\n\n[one, two, three, go|ready, set, go]! {friend} ran ahead and "
        "then [stopped to rest|stopped to eat {a_food}|fell asleep in the grass]. {name} did not stop. {he} went on, step by "
        'step.\n\nwhen {friend} looked up, {name} was already at {place2}. "you did it!" everyone shouted. {friend} [laughed '
        'and shook {his} hand|said, "well done, {name}!"]. {name} was {feeling}.',
        'the next day, {friend} said, "let us run again!" this time, they ran side by side, and they came to {place2} at the '
        "same time. they both won.",
    ),
    (
        "plant",
        "one spring day, {name} found a tiny seed near {place}. {he} put it into the ground near {place2} and gave it water. every "
        'morning, {he} looked at it. but nothing happened. "[why does it not grow|is it sleeping]?" asked {name}.\n\n'
        '"you must wait," said {friend}, {a_helper}. so {name} waited. the rain came, and the sun came. then, one day, there was '
        "a small green leaf!\n\nsoon there was a [tall sunflower|red rose|big apple tree|sweet melon]. {name} showed it to "
        "{friend}, and they [danced around it|sat next to it all day]. {name} was very {feeling}.",
        'in the autumn, there were many new seeds. {name} gave half of them to {friend}. "next year, we will have a whole '
        'garden," said {name}.',
    ),
    (
        "wait",
        '{name} wanted to see the stars, but it was [still light|still day]. "when will it be night?" {he} asked again and '
        'again. {friend}, {a_helper}, laughed. "come with me," said {friend}.\n\nfirst, they played hide and seek near '
        "{place}. then, they picked flowers by {place2}. after that, they ate {a_food}. {name} forgot all about the time.\n\n"
        'when they looked up, the sky was full of stars! "[look at them all|how they shine]!" said {name}. one star fell, and '
        "{name} made a wish. {he} went to bed {feeling}.",
        '"what did you wish for?" asked {friend} the next day. "I wished that we can do it all again," said {name}. and '
        "that is what they did.",
    ),
    (
        "small",
        "one morning, {name} heard a funny noise. [knock, knock, knock|tap, tap, tap]! {he} looked outside, but nobody was there. "
        "the noise came from {place}. {name} was curious, so {he} went to look.\n\nthere was {a_helper} named {friend} with a "
        'hammer. "I am building a {lost} for the party," said {friend}, "but I have no time to finish it." "I can help '
        'you," said {name}.\n\nthey worked [until noon|all day long]. {name} was good at it! in the evening, everyone came to '
        "{place2} and saw the {adj2} {lost}. they clapped, and {name} felt {feeling}.",
        "soon everybody wanted a {lost}. so {name} and {friend} opened a little shop at {place}. they worked together every day "
        "and had a lot of fun.",
    ),
    (
        "honest",
        "{name} saw {a_food} at {place}. it smelled so good! nobody was looking, so {name} [took a bite|ate it all up]. then "
        '{friend}, {a_helper}, came back. "who ate my food?" asked {friend}.\n\n{name} looked at the ground. {he} felt bad. '
        '"it was me," {he} said. "I was hungry, but I should have asked you first. I am sorry."\n\n{friend} was not angry '
        'anymore. "thank you for saying that," said {friend}. they went to {place2} and made {a_food2} together. {name} was '
        "{feeling}.",
        'the next time {name} was hungry, {he} knocked at {friend}\'s door and asked. "of course you can have some," said '
        '{friend}. "come in and sit down!"',
    ),
]
THING_PLOTS: list[tuple[str, str, str]] = [
    (
        "honest",
        "[one day|one sunny morning|one afternoon], a [little |]{child_kind} named {name} was playing near {place}. {he} saw "
        'something {look} in the grass. it was a {look} {thing}! "whose {thing} is this?" {he} asked.\n\n{name} asked [the '
        'baker|the teacher|the farmer], but it was not {o_his}. then {he} met an old [man|farmer|teacher] named {friend}. "that is my '
        '{thing}! I lost it," said {friend}. {name} gave the {thing} back.\n\n"you are very honest," said {friend} and gave '
        "{name} {a_food}. {name} ran home and felt {feeling}.",
        "the next day, {friend} asked {name} to come for a visit. they ate {a_food2}, and {friend} showed {name} the {thing} "
        'once more. "you may play with it whenever you like," said {friend}.',
    ),
    (
        "share",
        "{name} got a new {thing} for {his} birthday. it was {look}, and {name} loved it. {he} [took it to {place}|showed it to "
        'everyone|carried it around all day].\n\n{his} friend {friend} saw the {thing}. "may I [try|hold] it?" asked {friend}. '
        '"no, it is mine!" said {name}. {friend} was sad and went away. now {name} had the {thing}, but {he} had nobody to '
        'play with.\n\n{name} ran to {friend} and said, "I am sorry. let us share the {thing}." {friend} smiled, and they '
        "played together until [the sun went down|it was time for dinner].",
        "the next day, {friend} brought a {lost} to {place}, and they shared that too. {name} and {friend} were happy. it was "
        "much more fun to play together.",
    ),
    (
        "care",
        'there was once an old {thing}. it stood in a dark corner, and nobody used it. "I used to be {look}," said the {thing}. '
        '"now I am full of dust." the {thing} was sad.\n\none day, a {child_kind} named {name} came in with {his} friend '
        '{friend}. "look, {a_thing}!" said {name}. [they cleaned it with water and soap|they brushed the dust away|they gave '
        'it a new coat of paint]. soon it was {look} again.\n\n"now we can {use}," said {friend}. and they did. the old '
        "{thing} was {feeling}, because it had two new friends.",
        "every day, {name} and {friend} came to see the {thing}. they took it to {place} and back. the {thing} never stood in a "
        "dark corner again.",
    ),
    (
        "help",
        "a {child_kind} named {name} had a {look} {thing}. every day, {name} liked to [take it outside|show it to {his} mom|look "
        'at it]. but one day, the {thing} broke. "oh no!" cried {name}.\n\n{name} went to {his} grandpa, {friend}. "can you '
        'fix my {thing}?" {he} asked. "I think so," said grandpa {friend}, "but you must help me." {name} [held the tools|'
        "brought the glue|found the right parts]. they worked for a long time.\n\nat last, the {thing} was [as good as new|"
        "even better than before]. {name} hugged {his} grandpa and was very {feeling}.",
        'the next day, a friend came with a broken {lost}. "can you fix it?" the friend asked. {name} knew what to do now. '
        "{name} and grandpa {friend} fixed the {lost} together.",
    ),
    (
        "friend",
        "{name} was a {child_kind} who wanted {a_thing} more than anything. but it cost too much. so {name} [helped the farmer|"
        "washed cars|sold lemonade near {place}] and saved every coin.\n\nafter a long time, {name} had enough. {he} went to the "
        'shop with {his} friend {friend} and bought a {look} {thing}. "it is beautiful!" said {friend}. "now we can '
        '{use}!"\n\nthey took the {thing} to {place2} and had the best day. {name} was {feeling}, because {he} had worked hard '
        "for it.",
        'in the evening, {name} put the {thing} in a safe place. "good night, {thing}," said {name}. the next morning, {friend} '
        'was already at the door. "can we play again?" asked {friend}.',
    ),
    (
        "brave",
        "one day, a {look} {thing} was lost. the wind had carried it all the way to {place}. {a_helper} named {friend} found it. "
        '"what is this?" asked {friend}. "it is {a_thing}," said an old owl. "a {child_kind} must be looking for it."\n\n'
        "and so it was. a {child_kind} named {name} was crying at {place2}. {friend} was afraid of people, but {he_f} took the "
        '{thing} and brought it to {name}.\n\n"my {thing}!" said {name}. "thank you, little {helper}!" {name} gave {friend} '
        "{a_food}, and they were both {feeling}.",
        "after that, {friend} the {helper} came to see {name} every day. {name} let {friend} play with the {thing}, and they "
        "had a lot of fun.",
    ),
    (
        "small",
        "{name} found {a_adj_thing} under {his} bed. when {he} picked it up, the {thing} began to [shine|shake|hum]. it was a "
        'magic {thing}! "you have one wish," said the {thing}.\n\n{name} thought about it. {he} could wish for {a_food} or for '
        'a {lost}. but then {he} thought of {friend}, who was sick in bed. "I wish that my friend {friend} feels better," said '
        '{name}.\n\nthe {thing} shone brightly. the next day, {friend} came running to {place}. "I feel great!" said {friend}. '
        "{name} was {feeling}.",
        "the magic {thing} did not shine again. but {name} kept it in a special box. sometimes, at night, {he} could hear it say "
        'very softly, "you made a good wish."',
    ),
    (
        "wait",
        'a {child_kind} named {name} saw {a_thing} in a shop window. it was {look}, and {name} wanted it very much. "not today," '
        "said {his} mom. {name} was sad, but {he} [nodded|did not cry].\n\nevery day, {name} walked past the shop with {his} friend "
        '{friend} and looked at the {thing}. one day, it was gone! "somebody else has it now," said {name}. {friend} only '
        'smiled.\n\non {his} birthday, {name} opened a big box. inside was the {look} {thing}! "we wanted to surprise you," '
        "said mom and {friend}. {name} was so {feeling}.",
        "{name} took the {thing} to {place} every day. when {friend} had a birthday, {name} made a surprise too. {he} gave {friend} "
        "a new {lost}.",
    ),
    (
        "care",
        'one day, {name} forgot {his} {look} {thing} at {place}. that night, {he} could not sleep. "my {thing} is all alone in the '
        'dark," {he} thought.\n\nin the morning, {name} ran back with {his} friend {friend}. they looked [under a bench|behind '
        "a tree|in the grass]. the {thing} was not there! then they heard a dog bark. the dog [sat next to|was guarding] the "
        '{thing}.\n\n"good dog!" said {name} and gave the dog {a_food}. {name} carried the {thing} home and was {feeling}.',
        'the dog followed {name} all the way home. "can we keep him?" asked {name}. mom said yes. so now {name} had the {thing} '
        "and a new friend.",
    ),
]
NATURE_PLOTS: list[tuple[str, str, str]] = [
    (
        "friend",
        '{open_nature} the {thing} gave {gift} to everyone. but the {thing} was lonely. "nobody ever talks to me," it said.\n\n'
        'one day, a {child_kind} named {name} looked at the {thing} and said, "hello! you are [so beautiful|wonderful]!" the '
        '{thing} was surprised. "do you want to be my friend?" it asked. "yes!" said {name}.\n\nfrom that day on, {name} '
        "came every day with {friend} the {helper}. they told the {thing} about {place} and about {food}. the {thing} was "
        "{feeling} and not lonely anymore.",
        "one day, {name} was sick and could not come. the {thing} missed {him}. so it asked {friend} the {helper} to bring {name} "
        "{a_food}. soon {name} felt better and came back.",
    ),
    (
        "help",
        "{name} was a {child_kind} who loved the {thing}. every evening, {he} [looked at it|thought of it] before {he} went to "
        'bed. one day, {name} got lost near {place}. it was getting dark, and {he} was scared.\n\n"please help me," {name} said '
        'to the {thing}. the {thing} [heard {him}|was kind]. it sent {a_helper} named {friend}. "follow me," said {friend}. '
        'they walked past {place2}, and the {thing} watched over them.\n\nsoon {name} saw {his} house. "thank you, {friend}! '
        'thank you, {thing}!" {he} said. {his} mom gave {him} a big hug, and everyone was {feeling}.',
        "the next evening, {name} put {a_food} outside for {friend}. {friend} came and ate it all up. then they both looked at "
        "the {thing} and felt warm inside.",
    ),
    (
        "try",
        'a [little |]{child_kind} named {name} wanted to [visit|see|reach] the {thing}. "it is {where}," said {his} mom. "that is '
        'very far." but {name} did not give up. {he} packed {a_food} and asked {his} friend {friend} the {helper} to come '
        "along.\n\nthey walked past {place} and over {place2}. they were tired, but they kept going. at last, they sat down and "
        'looked. there was the {thing}! it gave them {gift}.\n\n"it is even nicer than I thought," said {name}. they shared '
        "the food and went home {feeling}.",
        'at home, {name} drew a picture of the {thing}. mom put it on the wall. "where will you go next?" she asked. {name} '
        'smiled and said, "{friend} and I want to see {place}!"',
    ),
    (
        "small",
        '{open_nature} it was {adj2}, and all the others laughed at it. "you are too small," they said. the {thing} was '
        "sad.\n\nthen a hot summer came. {a_helper} named {friend} was tired and had nowhere to go. a {child_kind} named {name} "
        'was looking for help. "come to me," said the {thing}. it gave them {gift}, and they felt better.\n\n"you are not '
        'too small," said {name}. "you are just right." the {thing} was {feeling}, and nobody laughed at it again.',
        "{name} and {friend} told everyone about the kind {thing}. soon many friends came to see it. they sang songs and ate "
        "{a_food}, and the {thing} was never sad again.",
    ),
    (
        "wait",
        "every day, {name} and {his} friend {friend} the {helper} went to look at the {thing}. it was {where}. they loved it "
        'because it gave them {gift}.\n\nbut one day, the {thing} was gone! there was only fog. "where did it go?" asked '
        '{name}. {friend} thought about it. "maybe it is [sleeping|hiding]," said {friend}. so they sat down near {place} and '
        'waited. they ate {food} and told each other jokes.\n\nthen the fog went away, and there was the {thing} again. "you '
        'are back!" they shouted. they were so {feeling}.',
        'that night, {name} dreamed of the {thing}. in the dream, the {thing} said, "I am always here, even when you cannot see '
        'me." in the morning, {name} told {friend} about the dream.',
    ),
]
DEFAULT_HOMES: list[tuple[str, str]] = [
    ("a small house", "pancakes"),
    ("a quiet village", "soup"),
    ("a cozy little home", "bread"),
    ("a green valley", "apples"),
]
DEFAULT_LOOKS: list[str] = ["little", "shiny", "old", "new", "pretty", "special"]
ENDINGS: list[str] = [
    "[the end.|from that day on, they were best friends.|and they all lived happily ever after.]",
    "[{name} learned that|now {name} knew that|that day, {name} learned that] {lesson}.",
    "[that night, {name} slept very well.|what a lovely day it was!|{name} never forgot that day.]",
    "",
]


def subjects() -> list[str]:
    """Returns every subject that a story can be about."""
    known = [*ANIMALS, *QUIET_ANIMALS, *FANTASY, *PEOPLE, *THINGS, *NATURE]
    return known + EXTRA_ANIMALS + EXTRA_PEOPLE + EXTRA_THINGS


def _pronouns(kind: str, rng: random.Random, gender: str | None) -> tuple[str, dict[str, str]]:
    """Returns the gender of a hero, given or drawn, and the pronouns that go with it."""
    male = kind in _MALE or (kind not in _FEMALE and rng.random() < 0.5)
    male = gender == "male" if gender else male
    words = ("he", "his", "him", "his") if male else ("she", "her", "her", "hers")
    return ("male" if male else "female"), dict(zip(("he", "his", "him", "hers"), words, strict=True))


def make_story(
    rng: random.Random,
    subject: str,
    adjective: str | None = None,
    name: str | None = None,
    gender: str | None = None,
) -> Story:
    """Makes one story about the subject, whose hero is the subject or a child that meets it."""
    helper = rng.choice([animal for animal in HELPERS if animal != subject])
    place, place2 = rng.sample([place for place in PLACES if not place.endswith(" " + subject)], 2)
    lost, lost2 = rng.sample([thing for thing in LOST_THINGS if thing != subject], 2)
    a_food, a_food2 = rng.sample(FOODS, 2)
    look, use = THINGS.get(subject, (rng.choice(DEFAULT_LOOKS), "play with it"))
    where, gift = NATURE.get(subject, ("near the village", "joy"))
    child_kind = rng.choice(["boy", "girl"])
    is_thing = subject in THINGS or subject in EXTRA_THINGS
    is_hero = not is_thing and subject not in NATURE
    if gender and not is_hero:
        child_kind = "boy" if gender == "male" else "girl"
    gender, pronouns = _pronouns(subject if is_hero else child_kind, rng, gender)
    pool = BOY_NAMES if gender == "male" else GIRL_NAMES
    if is_hero and subject not in PEOPLE and subject not in EXTRA_PEOPLE:
        pool = pool + PET_NAMES
    name = name or rng.choice(pool)
    adjective = adjective or rng.choice(SUBJECT_ADJECTIVES)
    if subject in ("giant", "whale", "elephant") and adjective in ("tiny", "little", "small"):
        adjective = "big"
    home, food = {**QUIET_ANIMALS, **FANTASY, **PEOPLE}.get(subject, rng.choice(DEFAULT_HOMES))
    if subject in ANIMALS:
        home, food = ANIMALS[subject][:2]
    slots = {
        **pronouns,
        "name": name,
        "helper": helper,
        "a_helper": article(rng.choice(["little ", "kind ", "small ", "", "", "young "]) + helper),
        "a_adj_kind": article(f"{adjective} {subject}"),
        "home": home,
        "food": food,
        "feeling": rng.choice(FEELINGS),
        "place": place,
        "place2": place2,
        "lost": lost,
        "lost2": lost2,
        "adj2": rng.choice(["red", "blue", "little", "yellow", "favorite", "small", "green", "special"]),
        "a_food": a_food,
        "a_food2": a_food2,
        "skill": rng.choice(SKILLS),
        "fear": rng.choice(FEARS),
        "thing": subject,
        "a_thing": article(subject),
        "a_adj_thing": article(f"{look} {subject}"),
        "look": look,
        "use": use,
        "where": where,
        "gift": gift,
        "child_kind": child_kind,
        "o_his": "theirs",
    }
    if subject in NATURE:
        slots["adj2"] = rng.choice(["very small", "not very big", "young and small"])
        start = "[once|once upon a time|long ago], there was {a_thing} {where}."
        if subject in UNIQUE:
            start = "the {thing} was {where}."
        slots["open_nature"] = expand(rng, start, slots)
    plots = HERO_PLOTS if is_hero else NATURE_PLOTS if subject in NATURE else THING_PLOTS
    lesson, plot, more = rng.choice(plots)
    slots["lesson"] = rng.choice(LESSONS[lesson])
    if is_thing and "{helper}" not in plot:
        friends = BOY_NAMES if "grandpa" in plot or "an old [man" in plot else BOY_NAMES + GIRL_NAMES
    else:
        friends = PET_NAMES + PET_NAMES + BOY_NAMES + GIRL_NAMES
    slots["friend"] = slots["he_f"] = friend = rng.choice([n for n in friends if n != name])
    opening = rng.choice(OPENINGS) + " " if is_hero else ""
    text = expand(rng, opening + plot + " " + rng.choice(ENDINGS), slots)
    kind = subject if is_hero else child_kind
    return Story(subject, text, name, kind, friend, place, expand(rng, more, slots))
