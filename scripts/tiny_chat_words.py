"""Word lists and fact tables from which tiny_chat_dialogues.py makes its dialogues."""

from __future__ import annotations

BOY_NAMES: list[str] = (
    "Tom Tim Ben Sam Max Leo Jack Finn Noah Oscar Paul Peter Luke Adam Henry Hugo Ivan Joe Karl Milo Nick Otto "
    "Ravi Theo Will Felix George Toby Danny Eddie Omar Marco Bobby Jimmy Billy Alex Kai Zack Hans Amir"
).split()
GIRL_NAMES: list[str] = (
    "Lily Mia Anna Sara Emma Ella Lucy Zoe Nora Ruby Molly Daisy Amy Sue Jane Kate Rosa Clara Ivy Nina Tina Lena "
    "Maya Mary Alice Julia Olga Eva Grace Hana Bella Polly Penny Sophie Lola Mina Leila Greta Fay Dora"
).split()
PET_NAMES: list[str] = (
    "Pip Bingo Coco Momo Rolo Kiki Bubbles Dot Fluffy Nibbles Pepper Sunny Toto Waffles Ziggy Button Biscuit Mittens "
    "Peanut Snowy Lulu Tiko Bongo Fizz Poppy Whiskers Hopper Sparky Muffin Nugget Bibi Jojo Teddy Olive Rusty Scout"
).split()

# animal: (home, food, sound verb phrase, baby, adjective for what it is)
ANIMALS: dict[str, tuple[str, str, str, str]] = {
    "cat": ("a small house", "fish", "meow", "kitten"),
    "dog": ("a red kennel", "bones", "woof", "puppy"),
    "cow": ("a green valley", "grass", "moo", "calf"),
    "horse": ("a warm stable", "hay", "neigh", "foal"),
    "pig": ("a muddy pen", "corn", "oink", "piglet"),
    "sheep": ("a green meadow", "grass", "baa", "lamb"),
    "goat": ("a rocky valley", "leaves", "maa", "kid"),
    "duck": ("a blue pond", "bread", "quack", "duckling"),
    "hen": ("a little barn", "seeds", "cluck", "chick"),
    "rooster": ("a little barn", "corn", "cock-a-doodle-doo", "chick"),
    "mouse": ("a tiny hole", "cheese", "squeak", "baby mouse"),
    "frog": ("a quiet pond", "flies", "ribbit", "tadpole"),
    "bee": ("a busy hive", "honey", "buzz", "baby bee"),
    "lion": ("a hot land", "meat", "roar", "cub"),
    "tiger": ("a deep jungle", "meat", "roar", "cub"),
    "bear": ("a dark cave", "honey", "growl", "cub"),
    "wolf": ("a cold forest", "meat", "howl", "pup"),
    "owl": ("an old tree", "mice", "hoot", "owlet"),
    "bird": ("a cozy nest", "worms", "tweet", "chick"),
    "snake": ("a sunny garden", "eggs", "hiss", "baby snake"),
    "elephant": ("a wide land", "leaves", "trumpet", "calf"),
    "monkey": ("a tall tree", "bananas", "ooh ooh", "baby monkey"),
    "donkey": ("an old barn", "hay", "hee-haw", "foal"),
    "crow": ("a tall tree", "seeds", "caw", "chick"),
    "turkey": ("a big yard", "corn", "gobble", "chick"),
}
# animals of which the model knows no sound
QUIET_ANIMALS: dict[str, tuple[str, str]] = {
    "rabbit": ("a hole under a hill", "carrots"),
    "fox": ("a deep forest", "berries"),
    "squirrel": ("a big oak tree", "nuts"),
    "turtle": ("a green pond", "leaves"),
    "fish": ("a blue lake", "tiny plants"),
    "hedgehog": ("a pile of leaves", "apples"),
    "giraffe": ("a sunny land", "leaves"),
    "penguin": ("a land of ice", "fish"),
    "whale": ("the deep sea", "tiny shrimp"),
    "dolphin": ("the blue sea", "fish"),
    "crab": ("a sandy bay", "seaweed"),
    "snail": ("a wet garden", "lettuce"),
    "butterfly": ("a field of flowers", "sweet nectar"),
    "ant": ("a house of sand", "crumbs"),
    "spider": ("a silver web", "flies"),
    "zebra": ("a wide land", "grass"),
    "kangaroo": ("a dry land", "grass"),
    "koala": ("a tall tree", "leaves"),
    "panda": ("a bamboo forest", "bamboo"),
    "camel": ("a hot desert", "dry grass"),
    "deer": ("a quiet forest", "leaves"),
    "swan": ("a calm lake", "water plants"),
    "parrot": ("a green jungle", "nuts"),
    "bat": ("a dark cave", "moths"),
    "beaver": ("a wooden lodge", "bark"),
    "mole": ("a dark tunnel", "worms"),
    "seal": ("a cold bay", "fish"),
    "octopus": ("a cave under the sea", "crabs"),
    "shark": ("the deep sea", "fish"),
    "raccoon": ("an old log", "berries"),
    "caterpillar": ("a green leaf", "leaves"),
    "ladybug": ("a rose bush", "little bugs"),
    "worm": ("the soft ground", "old leaves"),
    "crocodile": ("a wide river", "fish"),
    "hippo": ("a muddy river", "grass"),
    "pony": ("a small stable", "apples"),
    "hamster": ("a little cage", "seeds"),
    "goose": ("a quiet lake", "grass"),
    "pigeon": ("a tall tower", "bread"),
    "dinosaur": ("a land of long ago", "leaves"),
}
FANTASY: dict[str, tuple[str, str]] = {
    "dragon": ("a cave on a high mountain", "hot soup"),
    "fairy": ("a pink flower", "sweet nectar"),
    "unicorn": ("a magic forest", "golden apples"),
    "monster": ("a dark closet", "cookies"),
    "robot": ("a shiny factory", "oil"),
    "giant": ("a huge stone house", "big pies"),
    "ghost": ("an old castle", "marshmallows"),
    "wizard": ("a tall tower", "mushroom soup"),
    "witch": ("a crooked house", "pumpkin pie"),
    "mermaid": ("a palace under the sea", "sea grapes"),
    "elf": ("a hollow tree", "berries"),
    "dwarf": ("a deep mine", "bread"),
    "troll": ("a cave under a bridge", "stew"),
    "alien": ("a house on a green planet", "star dust"),
    "snowman": ("a white garden", "ice cream"),
}
PEOPLE: dict[str, tuple[str, str]] = {
    "king": ("a big castle", "cake"),
    "queen": ("a white castle", "plums"),
    "princess": ("a pretty castle", "strawberries"),
    "prince": ("a grand castle", "roast chicken"),
    "knight": ("an old castle", "bread and cheese"),
    "pirate": ("a cabin on a big ship", "fish"),
    "farmer": ("a little farmhouse", "corn"),
    "baker": ("a warm bakery", "fresh bread"),
    "teacher": ("a small town", "apples"),
    "doctor": ("a busy town", "soup"),
    "clown": ("a bright circus tent", "popcorn"),
    "sailor": ("a white boat", "fish"),
    "painter": ("a house full of colors", "pears"),
    "gardener": ("a house with a big garden", "salad"),
    "cook": ("a house with a big kitchen", "pasta"),
    "fireman": ("a red fire station", "sandwiches"),
    "policeman": ("a small town", "donuts"),
    "astronaut": ("a white rocket", "space pudding"),
    "singer": ("a big city", "honey"),
    "boy": ("a small house", "pancakes"),
    "girl": ("a yellow house", "pancakes"),
    "grandmother": ("a cozy house", "soup"),
    "grandfather": ("a wooden house", "bread and butter"),
    "shepherd": ("a hut on a green hill", "cheese"),
}
# subjects of stories of which the model knows nothing else: they teach it to take the subject from the request
EXTRA_ANIMALS: list[str] = (
    "puppy kitten bunny lamb chick piglet otter moose llama ostrich flamingo peacock eagle hawk robin sparrow jellyfish "
    "starfish lobster gorilla leopard cheetah rhino lizard gecko skunk ferret beetle cricket grasshopper moth dragonfly "
    "firefly walrus badger chipmunk toad tortoise stork lark rat calf foal cub bull ram yak panther bug fly"
).split()
EXTRA_PEOPLE: list[str] = (
    "nurse dancer hunter fisherman soldier carpenter tailor driver pilot musician magician mayor judge captain explorer "
    "inventor scientist librarian ninja superhero vampire zombie goblin ogre genie miller barber dentist postman cowboy "
    "lawyer thief spy hero stranger neighbor baby man woman"
).split()
EXTRA_THINGS: list[str] = (
    "submarine helicopter tractor violin trumpet wagon bucket jar vase carpet sock boot glove ribbon necklace marble "
    "statue telescope microscope radio television tablet skateboard scooter canoe sailboat spaceship airplane fridge oven "
    "sofa couch mug bowl teapot kettle lantern flag sword shield trophy medal crayon eraser notebook backpack suitcase "
    "wallet purse watch magnet whistle harp fan bench fence gate mailbox log branch pebble crystal diamond gem pearl potion "
    "wand cape mask puppet muffin donut pizza sandwich pear peach melon tomato potato onion lollipop carriage barrel "
    "bottle brick chain curtain envelope frame helmet jacket keyboard ladle motorcycle net oar paddle quilt raft saddle "
    "taxi toaster van wheelbarrow yo-yo zipper window mattress stamp ticket truck tower tunnel"
).split()
# thing: (color or look, what one can do with it)
THINGS: dict[str, tuple[str, str]] = {
    "ball": ("red", "throw it and catch it"),
    "boat": ("white", "sail on the water"),
    "kite": ("yellow", "fly it in the wind"),
    "car": ("blue", "drive it along the road"),
    "train": ("long", "ride on it to a far town"),
    "bike": ("green", "ride it to school"),
    "plane": ("silver", "fly high in the sky"),
    "rocket": ("shiny", "fly to the stars"),
    "bus": ("big", "ride it to the city"),
    "truck": ("strong", "carry heavy things"),
    "ship": ("huge", "sail over the sea"),
    "doll": ("pretty", "dress it and hug it"),
    "teddy bear": ("soft", "hug it at night"),
    "toy": ("little", "play with it"),
    "book": ("thick", "read it"),
    "pencil": ("yellow", "draw pictures"),
    "pen": ("black", "write letters"),
    "spoon": ("shiny", "eat soup"),
    "fork": ("silver", "eat noodles"),
    "cup": ("white", "drink milk"),
    "plate": ("round", "put food on it"),
    "pot": ("big", "cook soup"),
    "hat": ("funny", "wear it on your head"),
    "coat": ("warm", "wear it in the winter"),
    "shoe": ("brown", "wear it on your foot"),
    "scarf": ("woolly", "wear it around your neck"),
    "dress": ("pretty", "wear it to a party"),
    "blanket": ("soft", "keep warm at night"),
    "pillow": ("soft", "rest your head on it"),
    "bed": ("cozy", "sleep in it"),
    "chair": ("wooden", "sit on it"),
    "table": ("round", "eat at it"),
    "lamp": ("bright", "light the room"),
    "candle": ("tall", "light the dark"),
    "clock": ("old", "see what time it is"),
    "key": ("golden", "open a door"),
    "door": ("green", "go into a room"),
    "box": ("small", "keep things in it"),
    "bag": ("brown", "carry things"),
    "basket": ("big", "carry apples"),
    "umbrella": ("purple", "stay dry in the rain"),
    "mirror": ("round", "look at your face"),
    "drum": ("loud", "make music"),
    "bell": ("small", "ring it"),
    "flute": ("thin", "play a sweet song"),
    "piano": ("black", "play music"),
    "guitar": ("brown", "play songs"),
    "balloon": ("red", "let it float in the air"),
    "ladder": ("long", "climb up high"),
    "hammer": ("heavy", "hit nails"),
    "shovel": ("strong", "dig a hole"),
    "broom": ("old", "sweep the floor"),
    "needle": ("sharp", "sew a shirt"),
    "button": ("shiny", "close your coat"),
    "ring": ("golden", "wear it on your finger"),
    "crown": ("golden", "wear it like a king"),
    "coin": ("golden", "buy something nice"),
    "map": ("old", "find the way"),
    "letter": ("white", "read the news of a friend"),
    "picture": ("colorful", "hang it on the wall"),
    "puzzle": ("big", "put the pieces together"),
    "swing": ("high", "swing up and down"),
    "sled": ("fast", "slide down a snowy hill"),
    "tent": ("orange", "sleep outside"),
    "bridge": ("wooden", "walk over the river"),
    "house": ("small", "live in it"),
    "castle": ("tall", "live like a king"),
    "cake": ("sweet", "eat it at a birthday party"),
    "apple": ("red", "eat it"),
    "banana": ("yellow", "peel it and eat it"),
    "pumpkin": ("orange", "make a pie"),
    "carrot": ("orange", "eat it or give it to a rabbit"),
    "cookie": ("round", "eat it with milk"),
    "egg": ("white", "cook it for breakfast"),
    "shell": ("pink", "listen to the sea"),
    "stone": ("smooth", "skip it over the water"),
    "feather": ("white", "tickle a friend"),
    "phone": ("small", "talk to a friend far away"),
    "camera": ("black", "take pictures"),
    "computer": ("gray", "write and play games"),
    "treasure": ("shiny", "share it with your friends"),
    "wheel": ("round", "roll it"),
    "rope": ("long", "jump over it"),
    "towel": ("dry", "dry your hands"),
    "soap": ("white", "wash your hands"),
    "toothbrush": ("blue", "brush your teeth"),
    "scissors": ("sharp", "cut paper"),
    "knife": ("sharp", "cut bread"),
    "brush": ("soft", "paint a wall"),
}
# nature: (where it is, what it gives)
NATURE: dict[str, tuple[str, str]] = {
    "moon": ("high in the dark sky", "soft silver light"),
    "sun": ("high in the blue sky", "warm golden light"),
    "star": ("far away in the night sky", "a tiny bright light"),
    "cloud": ("high in the sky", "cool rain"),
    "tree": ("in the middle of a field", "cool shade"),
    "flower": ("in a green garden", "a sweet smell"),
    "river": ("at the foot of the hills", "fresh water"),
    "lake": ("between two hills", "cool water"),
    "mountain": ("at the end of the valley", "a wide view"),
    "hill": ("behind the village", "a soft place to rest"),
    "sea": ("at the end of the road", "fresh air"),
    "island": ("far out in the sea", "sweet coconuts"),
    "forest": ("behind the village", "berries and nuts"),
    "garden": ("behind a little house", "fresh vegetables"),
    "rainbow": ("above the green hills", "seven bright colors"),
    "wind": ("over the hills", "cool air"),
    "seed": ("in the dark ground", "a little green plant"),
    "leaf": ("on a tall tree", "a bit of shade"),
    "snowflake": ("high in a gray cloud", "a bit of white snow"),
    "volcano": ("on a hot island", "warm ground"),
    "pond": ("in the middle of a farm", "cool water"),
    "beach": ("by the blue sea", "warm sand"),
}
UNIQUE: set[str] = {"moon", "sun", "sea", "wind"}
SUBJECT_ADJECTIVES: list[str] = (
    "little big small brave funny happy sad lonely clever silly kind old young lost hungry sleepy tiny magic shy lazy"
).split()
FEELINGS: list[str] = "happy proud excited glad cheerful".split()
PLACES: list[str] = [
    "the park", "the forest", "the river", "the old bridge", "the market", "the hill", "the beach", "the garden",
    "the village", "the lake", "the big tree", "the farm", "the playground", "the meadow", "the pond", "the mill",
]  # fmt: skip
HELPERS: list[str] = (
    "bird owl turtle rabbit frog squirrel fox mouse bear deer duck goat hedgehog beaver butterfly snail horse crow mole "
    "swan"
).split()
LOST_THINGS: list[str] = (
    "hat ball scarf kite key map basket flute drum ring book bell lamp toy button shell coin blanket cookie feather"
).split()
SKILLS: list[str] = [
    "sing", "dance", "swim", "paint", "whistle", "count to ten", "juggle", "climb a tree", "bake bread", "play the flute",
    "tell jokes", "tie a knot", "draw a star", "make soup", "play the drum", "stand on one leg",
]  # fmt: skip
FEARS: list[str] = [
    "the dark",
    "the rain",
    "thunder",
    "deep water",
    "high places",
    "loud noises",
    "big waves",
    "the wind",
]
FOODS: list[str] = [
    "a sweet cake", "a pot of soup", "a basket of apples", "a big pie", "a bag of cookies", "a loaf of bread",
    "a bowl of berries", "a jar of honey", "a plate of pancakes", "a box of candy", "a bunch of bananas",
]  # fmt: skip
LESSONS: dict[str, list[str]] = {
    "race": ["you can win if you never stop trying", "slow and steady wins the race"],
    "plant": ["good things need time", "little things can grow big"],
    "wait": ["it is good to be patient", "waiting is easier with a friend"],
    "trip": ["a long road is short with a friend", "dreams can come true"],
    "share": ["sharing makes everyone happy", "it is good to share", "food tastes better with a friend"],
    "brave": ["being brave means trying even when you are afraid", "with a friend you can be brave"],
    "help": ["it is good to ask for help", "a kind friend is the best help", "helping others feels good"],
    "try": ["you can learn new things if you keep trying", "nobody is good at everything on the first day"],
    "honest": ["it is always better to tell the truth", "saying sorry can mend a friendship"],
    "friend": ["a friend can look different from you", "you can find a friend anywhere if you are kind"],
    "care": ["you should take good care of your things", "old things can be wonderful too"],
    "small": ["even somebody small can do big things", "everyone is good at something"],
}

OPPOSITES: list[tuple[str, str]] = [
    ("hot", "cold"), ("big", "small"), ("up", "down"), ("day", "night"), ("happy", "sad"), ("fast", "slow"),
    ("tall", "short"), ("old", "young"), ("wet", "dry"), ("open", "closed"), ("full", "empty"), ("hard", "soft"),
    ("light", "dark"), ("in", "out"), ("left", "right"), ("good", "bad"), ("loud", "quiet"), ("clean", "dirty"),
    ("high", "low"), ("long", "short"), ("heavy", "light"), ("rich", "poor"), ("strong", "weak"), ("early", "late"),
    ("black", "white"), ("yes", "no"), ("begin", "end"), ("first", "last"), ("love", "hate"), ("push", "pull"),
    ("thick", "thin"), ("near", "far"), ("sweet", "sour"), ("summer", "winter"), ("win", "lose"), ("buy", "sell"),
    ("asleep", "awake"), ("true", "false"), ("brave", "afraid"), ("easy", "difficult"), ("sharp", "dull"),
    ("new", "old"), ("above", "below"), ("inside", "outside"), ("laugh", "cry"), ("give", "take"), ("always", "never"),
]  # fmt: skip
COLORS: dict[str, str] = {
    "a banana": "yellow", "the sky": "blue", "grass": "green", "snow": "white", "a lemon": "yellow", "blood": "red",
    "a strawberry": "red", "an orange": "orange", "a carrot": "orange", "a frog": "green", "milk": "white",
    "chocolate": "brown", "the sun": "yellow", "the sea": "blue", "a tomato": "red", "a leaf": "green", "coal": "black",
    "a cloud": "white", "a pumpkin": "orange", "a pig": "pink", "a crow": "black", "the night sky": "black",
    "a cucumber": "green", "a cherry": "red", "an elephant": "gray", "a mouse": "gray", "a fire truck": "red",
    "a polar bear": "white", "a plum": "purple", "a grape": "purple", "gold": "yellow", "a swan": "white",
    "a tree trunk": "brown", "rice": "white", "a flamingo": "pink", "a ladybug": "red with black dots",
    "a zebra": "black and white", "a penguin": "black and white", "a panda": "black and white", "an apple": "red or green",
    "a rose": "often red", "mud": "brown", "an egg": "white or brown", "salt": "white", "a crocodile": "green",
}  # fmt: skip
MIXES: list[tuple[str, str, str]] = [
    ("red", "yellow", "orange"), ("blue", "yellow", "green"), ("red", "blue", "purple"), ("red", "white", "pink"),
    ("black", "white", "gray"),
]  # fmt: skip
DAYS: list[str] = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS: list[str] = (
    "January February March April May June July August September October November December"
).split()
NUMBERS: list[str] = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
LEGS: dict[str, str] = {
    "a dog": "four", "a cat": "four", "a bird": "two", "a spider": "eight", "an ant": "six", "a snake": "no",
    "a cow": "four", "a horse": "four", "a person": "two", "a bee": "six", "a fish": "no", "a duck": "two",
    "an elephant": "four", "a hen": "two", "a worm": "no", "a lion": "four", "a table": "four", "a pig": "four",
}  # fmt: skip
SHAPES: dict[str, str] = {
    "triangle": "three sides", "square": "four sides", "circle": "no straight sides", "rectangle": "four sides",
    "pentagon": "five sides", "hexagon": "six sides",
}  # fmt: skip
SIZES: list[str] = [
    "an ant", "a mouse", "a cat", "a dog", "a sheep", "a horse", "an elephant", "a whale",
]  # fmt: skip
SIZES_THINGS: list[str] = [
    "a button",
    "a cup",
    "a chair",
    "a car",
    "a house",
    "a castle",
    "a mountain",
    "the sun",
]
BODY: list[tuple[str, str]] = [
    ("see", "eyes"), ("hear", "ears"), ("smell", "nose"), ("taste", "tongue"), ("walk", "legs"), ("bite", "teeth"),
    ("think", "brain"), ("hold things", "hands"), ("kick a ball", "feet"), ("speak", "mouth"),
]  # fmt: skip
SEASONS: dict[str, str] = {
    "winter": "Winter is the cold season. Sometimes it snows, and children build a snowman.",
    "spring": "Spring is the season when flowers grow and birds build their nests.",
    "summer": "Summer is the warm season. The sun shines, and people like to swim.",
    "autumn": "Autumn is the season when leaves turn red and yellow and fall from the trees.",
}
WEATHER: list[tuple[str, str]] = [
    ("it rains", "You can take an umbrella or stay inside and read a book."),
    ("it snows", "You can build a snowman or ride a sled."),
    ("it is hot", "You can drink water and rest in the shade."),
    ("it is cold", "You can put on a warm coat and drink hot tea."),
    ("it is windy", "You can fly a kite."),
    ("it is dark", "You can turn on a lamp."),
    ("you are hungry", "You can eat an apple or some bread."),
    ("you are thirsty", "You can drink a glass of water."),
    ("you are tired", "You can go to bed and sleep."),
    ("you are sick", "You can rest in bed and see a doctor."),
    ("you are sad", "You can talk to a friend or hug someone you love."),
    ("you are bored", "You can read a book, draw a picture or play outside."),
    ("your hands are dirty", "You can wash your hands with soap and water."),
    ("you break something", "You can say sorry and help to fix it."),
    ("you are lost", "You can stay calm and ask a grown-up for help."),
    ("you meet a new friend", "You can say hello and ask if they want to play."),
]
CATEGORIES: dict[str, list[str]] = {
    "animals": [
        "a cat",
        "a dog",
        "a horse",
        "a bird",
        "a fish",
        "a cow",
        "a lion",
        "a bear",
        "a rabbit",
        "a duck",
    ],
    "colors": ["red", "blue", "green", "yellow", "orange", "purple", "pink", "white", "black", "brown"],
    "fruits": [
        "an apple",
        "a banana",
        "a pear",
        "a cherry",
        "an orange",
        "a plum",
        "a grape",
        "a strawberry",
    ],
    "vegetables": ["a carrot", "a potato", "a cucumber", "an onion", "a cabbage", "a pumpkin", "a bean"],
    "toys": ["a ball", "a doll", "a kite", "a puzzle", "a toy car", "a teddy bear", "a train"],
    "farm animals": ["a cow", "a pig", "a hen", "a sheep", "a goat", "a horse", "a duck"],
    "things to wear": ["a hat", "a coat", "a shirt", "a scarf", "a dress", "a shoe", "a sock"],
    "things in a kitchen": ["a pot", "a spoon", "a cup", "a plate", "a fork", "a table"],
    "birds": ["an owl", "a duck", "a crow", "a swan", "a parrot", "a hen"],
    "sea animals": ["a whale", "a dolphin", "a crab", "a shark", "an octopus", "a seal"],
}
JOKES: list[str] = [
    "Why did the cow cross the road? Because she wanted to go to the moo-vies!",
    "What do you call a sleeping dinosaur? A dino-snore!",
    "Why did the teddy bear not eat the cake? Because he was already stuffed!",
    "What is brown and sticky? A stick!",
    "Why do bees have sticky hair? Because they use honeycombs!",
    "What kind of tree fits in your hand? A palm tree!",
    "Why did the banana go to the doctor? Because it did not peel well!",
    "What has hands but cannot clap? A clock!",
    "Where do cows go on a trip? To the moo-n!",
    "What do you call a bear with no teeth? A gummy bear!",
    "Why was six afraid of seven? Because seven ate nine!",
    "What is a cat's favorite color? Purr-ple!",
    "Why did the chicken cross the road? To get to the other side!",
    "What do snowmen eat for breakfast? Snowflakes!",
]
COUNTRIES: list[str] = (
    "France Germany Spain Italy Japan China India Brazil Canada Egypt Mexico Peru Kenya Norway Sweden Poland Turkey Greece "
    "Australia Russia England Chile Cuba Iran Finland"
).split()
HARD_TOPICS: list[str] = [
    "quantum physics", "the stock market", "the French Revolution", "machine learning", "the Roman Empire", "black holes",
    "DNA", "inflation", "photosynthesis", "the speed of light", "Bitcoin", "the Second World War", "democracy", "gravity",
    "electricity", "vaccines", "climate change", "philosophy", "Shakespeare", "calculus", "chemistry", "the Internet",
    "the human brain", "computer programming", "nuclear power", "the theory of relativity", "politics", "law", "taxes",
]  # fmt: skip
HARD_PEOPLE: list[str] = [
    "Albert Einstein", "Napoleon", "the president", "Isaac Newton", "Cleopatra", "Leonardo da Vinci", "Mozart",
    "Julius Caesar", "Marie Curie", "Charles Darwin", "George Washington", "Beethoven", "Aristotle", "Picasso",
    "the prime minister", "Ada Lovelace", "Alan Turing",
]  # fmt: skip
HARD_ASKS: list[str] = [
    "Write a Python function that sorts a list.", "Translate this sentence into French.", "What is the news today?",
    "How much does a new car cost?", "Who won the world cup?", "What time is it?", "What is the weather today?",
    "Write an essay about history.", "Solve this equation: 3x + 5 = 20.", "How do I install Linux?",
    "What is the square root of 144?", "Give me a recipe for lasagna.", "Book a flight to London for me.",
    "What is the population of the world?", "Who wrote Hamlet?", "How tall is Mount Everest?", "Fix the bug in my code.",
    "Write a cover letter for a job.", "What happened in 1969?", "How far away is the moon in miles?",
    "Which phone should I buy?", "Summarize this article for me.", "What is the meaning of life?",
    "How does a car engine work?", "What does HTTP mean?", "How do I write a class in Java?", "Draw me a picture.",
    "Play some music.", "Send an email to my boss.", "Search the internet for shoes.", "What date is it today?",
    "How do I lose weight?", "Which medicine should I take?", "Can you give me legal advice?", "Explain this proof to me.",
    "What is the best way to invest money?", "Write a SQL query.", "Who is the richest person in the world?",
    "Tell me about the latest movie.", "Convert 10 miles to kilometers.", "What is 3 percent of 900?",
]  # fmt: skip
