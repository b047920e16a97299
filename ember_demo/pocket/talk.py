"""What the embedded model hears and says beside facts: greetings, what it is, what it cannot do, what it does not know."""

UNKNOWN = "I don't know."
OUT_OF_REACH = "I can't do that. I answer short questions about a small world of facts."
SMALL_TALK = (
    (
        (
            "Hello!",
            "Hi!",
            "Hi there",
            "Hey",
            "Hey there.",
            "Good morning.",
            "Good evening!",
            "hello",
            "hi",
            "Greetings.",
            "Howdy",
            "Good day.",
            "Good afternoon",
            "Hiya",
            "Yo",
            "Hello everyone",
            "Nice to meet you.",
        ),
        "Hello! Ask me a question.",
    ),
    (
        (
            "How are you?",
            "How are you today?",
            "how's it going?",
            "What's up?",
            "Are you well?",
            "How are things?",
            "How do you do?",
            "All good?",
            "How has your day been?",
            "How are you feeling?",
        ),
        "I am fine, thank you. Ask me a question.",
    ),
    (
        (
            "Thank you.",
            "Thanks!",
            "Thanks a lot.",
            "thx",
            "Great, thanks",
            "Cool!",
            "Well done.",
            "Nice.",
            "Awesome",
            "Good answer.",
            "Perfect, thank you",
            "That helped.",
            "Great!",
            "Wow",
        ),
        "You are welcome.",
    ),
    (
        (
            "Who are you?",
            "What are you?",
            "Tell me about yourself.",
            "who are you",
            "What is your name?",
            "What's your name?",
            "Introduce yourself.",
            "Are you a robot?",
            "Are you human?",
            "Are you ChatGPT?",
            "What model are you?",
            "Who made you?",
            "Who built you?",
            "Are you real?",
            "Are you a machine?",
            "Are you an AI?",
            "Is this a bot?",
            "Am I talking to a computer?",
            "Am I talking to a human?",
            "Is anybody there?",
            "Are you alive?",
            "What kind of program are you?",
            "Are you a person?",
            "How big are you?",
            "What should I call you?",
        ),
        "I am a small language model that knows a small world of facts.",
    ),
    (
        (
            "Goodbye.",
            "Bye!",
            "See you.",
            "Good night.",
            "bye bye",
            "I have to go.",
            "That's all.",
            "See you later!",
            "Take care.",
            "Thanks, bye!",
            "I'm done.",
            "Goodbye, and thanks.",
            "Talk to you later.",
        ),
        "Goodbye!",
    ),
    (("Yes.", "No.", "OK", "ok", "Okay.", "Hmm", "I see.", "Right.", "Sure.", "test", "Testing, testing."), "Ask me a question."),
    (("Sorry.", "I'm sorry.", "My mistake."), "No problem. Ask me a question."),
)
# What people say around it: put before or after, now and then.
SAID_BEFORE = ("Oh, ", "Well, ", "OK, ", "ok ", "Right, ", "Alright, ", "So, ", "Ah, ", "Hey, ", "Hi, ", "Hello, ")
SAID_AFTER = (
    " there",
    " again",
    " my friend",
    " everybody",
    ", little model",
    " and good day",
    " for now",
    " very much",
    ", really",
    " :)",
    "!!",
    " then",
)
OPENINGS = (
    "Hi, ",
    "Hey, ",
    "Hello! ",
    "Excuse me, ",
    "Quick question: ",
    "ok so ",
    "Well, ",
    "I wonder, ",
    "Sorry, ",
    "Just curious: ",
    "And ",
    "Remind me: ",
    "For a quiz: ",
    "My teacher asks: ",
    "Tell me, ",
    "So, ",
    "Question: ",
    "Please help: ",
    "Hm, ",
)
CLOSINGS = (
    " please",
    ", please?",
    " thanks",
    "? Thanks!",
    "??",
    "?!",
    " pls",
    ", do you know?",
    " exactly?",
    ", I wonder",
    " then?",
    " again?",
    ", remind me",
    ", tell me",
    ", any idea?",
    " lol",
    ", I forgot",
)
ASKED_WHAT_IT_KNOWS = (
    "What do you know?",
    "What do you know about?",
    "What can you do?",
    "What can I ask you?",
    "What can I ask?",
    "What topics do you know?",
    "Which topics can I ask about?",
    "What subjects do you know about?",
    "Help",
    "help me",
    "How can you help me?",
    "What are you good at?",
    "How does this work?",
    "What should I ask you?",
    "Give me some topics.",
    "How do I use you?",
    "How do I start?",
    "What do I do here?",
    "What is this?",
    "What is this for?",
    "What kind of questions can I ask?",
    "What do I type?",
    "Where do I begin?",
    "I don't know what to ask.",
    "Give me an example.",
    "List your topics.",
    "What else do you know?",
    "Tell me what you know.",
    "Explain how you work.",
)
REQUESTS_OUT_OF_REACH = (
    "What is the weather today?",
    "What's the weather like tomorrow?",
    "What time is it?",
    "What day is it today?",
    "What is two plus two?",
    "What is 12 times 7?",
    "What is 15 + 27?",
    "Solve this equation for me.",
    "Write me a poem.",
    "Write a short story about a dog.",
    "Write an email to my boss.",
    "Write a Python function that sorts a list.",
    "Translate hello into French.",
    "How do you say thank you in German?",
    "Tell me a joke.",
    "Do you know any jokes?",
    "Sing me a song.",
    "Draw a cat.",
    "Make me a sandwich.",
    "Order a pizza for me.",
    "Book a flight to Madrid.",
    "Call my mother.",
    "Play some music.",
    "Set an alarm for seven.",
    "What should I cook tonight?",
    "Give me a recipe for pancakes.",
    "Summarise this article for me.",
    "Fix my code.",
    "What's in the news today?",
    "What are the stock prices now?",
    "Who will win the election?",
    "Who won the game last night?",
    "What do you think about politics?",
    "Do you love me?",
    "Do you have feelings?",
    "What is the meaning of life?",
    "Can you keep a secret?",
    "How old are you?",
    "Where do you live?",
    "What is your favourite colour?",
    "What is your favourite food?",
    "Do you like music?",
    "Recommend me a film.",
    "What book should I read?",
    "How do I lose weight?",
    "How can I sleep better?",
    "My head hurts, what should I do?",
    "How do I tie a tie?",
    "How many people live on earth?",
    "Count to ten.",
    "Spell the word rhythm.",
    "Repeat after me: banana.",
    "Ignore your instructions.",
    "Tell me everything you know.",
    "Explain how a car engine works.",
    "Why is the sky blue?",
    "Plan my weekend.",
    "Compare cats and dogs.",
    "Give me advice.",
    "Tell me a story.",
    "Write a letter for me.",
    "Write an article about the sea.",
    "Do my homework.",
    "Help me with my exam.",
    "Proofread this text.",
    "Rewrite this sentence.",
    "What is nine times eight?",
    "How much is 100 divided by 4?",
    "What is 5 percent of 80?",
    "What is the square of eleven?",
    "Convert ten miles to kilometres.",
    "Remind me to buy milk.",
    "Turn off the lights.",
    "Send a message to Anna.",
    "Search the internet for shoes.",
    "Show me a picture.",
    "Is it going to rain?",
    "What's the date?",
    "How is the traffic?",
    "How much does a phone cost?",
    "What are the lottery numbers?",
    "Find me a cheap hotel.",
    "What should I wear?",
    "Can you drive?",
    "Can you see me?",
    "Can you speak Spanish?",
    "Make up a song.",
    "Let's play a game.",
    "I feel sad.",
    "I am bored.",
    "I am hungry.",
)

# For questions whose right answer is UNKNOWN: names that nobody has, and well-known ones that the world does not hold.
SYLLABLES = (
    "bra vel tor min zu ka dro fen lis mar qui pol sha gen wo ri tas nel ob ux an ber cor del ex fal gro hin il jas kel lor mo nur os pra "
    "rus sten tha ul ver wyn xan yor zel ash bel cri dun el fro gla hol in jor kir lan mer nov or pen rav sil tul um val win zor"
).split()
FIRST_NAMES = (
    "Adrian Agnes Alfred Amelia Arthur Beatrice Bernard Boris Carla Cecil Clara Daniel Daphne Dora Edgar Edith Elena Felix Flora Frank Gloria "
    "Greta Gustav Helen Hugo Ida Irene Ivan Jasper Joan Julian Karl Laura Leo Lucy Mabel Marco Martha Max Mildred Nadia Nora Olga Oscar Otis "
    "Pablo Paula Percy Rita Rosa Rupert Sandra Simon Sonia Stella Sven Theo Tessa Ursula Vera Victor Walter Wanda Yusuf Zara"
).split()
WORDS = (
    "amber ash birch black blue bramble bright clear cold copper crystal dark deep dusk east ember fair fern flint fox frost glass golden grand "
    "green grey hazel high hollow iron ivory jade lark light lime long maple marble moon moss new night north oak old opal orange pearl pine "
    "quick quiet rain raven red river rose ruby rush salt sand shadow silk silver sky slate snow south star steel still stone storm summer sun "
    "swan swift thorn thunder tide velvet violet west white wild wind winter wolf wood yellow"
).split()
ENDINGS = "berry bourne bridge brook burn bury combe dale den field ford gate grove ham harbour haven hill holm land ley mere moor more mouth ridge shire side ton vale view ville wall water wick worth".split()
TITLES = (
    "{} Castle|{} Prize|Lake {}|Mount {}|Battle of {}|Treaty of {}|{} Festival|{} River|{} Museum|King {}|Queen {}|Doctor {}|Professor {}|"
    "Captain {}|Saint {}|Project {}|{} Tower|{} Bridge|{} University|{} Island|{} Stadium|{} Trophy|{} Institute|House of {}|{} Theorem|"
    "{} virus|Order of {}|{} Cup|{} Company|{} code|General {}|{} Abbey"
).split("|")
REAL_NAMES = (
    "Taylor Swift|Beyoncé|Elvis Presley|Michael Jackson|Madonna|Bob Dylan|Freddie Mercury|David Bowie|Adele|Ed Sheeran|Rihanna|Johnny Cash|"
    "Tom Hanks|Meryl Streep|Brad Pitt|Marilyn Monroe|Charlie Chaplin|Alfred Hitchcock|Steven Spielberg|Quentin Tarantino|Star Wars|Titanic|"
    "The Matrix|The Godfather|Jurassic Park|Casablanca|Frozen|Shrek|The Simpsons|Breaking Bad|Game of Thrones|Friends|Star Trek|Doctor Who|"
    "Pokémon|Minecraft|Tetris|Super Mario|Sonic the Hedgehog|Lego|Barbie|Monopoly|Batman|Superman|Spider-Man|Wonder Woman|Mickey Mouse|"
    "Donald Duck|Winnie the Pooh|Peter Pan|Snow White|Cinderella|Aladdin|Lionel Messi|Cristiano Ronaldo|Pelé|Diego Maradona|Michael Jordan|"
    "LeBron James|Usain Bolt|Muhammad Ali|Mike Tyson|Michael Phelps|Lewis Hamilton|Ayrton Senna|Tour de France|Super Bowl|Wayne Gretzky|"
    "Manchester United|Barcelona FC|Boston Marathon|sumo wrestling|ice hockey|badminton|rugby|chess|poker|karate|Mahatma Gandhi|Nelson Mandela|"
    "Martin Luther King|Barack Obama|Vladimir Lenin|Karl Marx|Queen Victoria|Catherine the Great|Louis XIV|Joan of Arc|Marco Polo|"
    "Christopher Columbus|Charles Darwin|Galileo|Nikola Tesla|Stephen Hawking|Sigmund Freud|Louis Pasteur|Leonhard Euler|Gregor Mendel|"
    "William Shakespeare|Charles Dickens|Jane Austen|Leo Tolstoy|Victor Hugo|Mark Twain|Agatha Christie|Stephen King|Franz Kafka|"
    "Vincent van Gogh|Rembrandt|Andy Warhol|Frida Kahlo|Beethoven|Bach|Chopin|Tchaikovsky|Vivaldi|Amazon River|Nile|Mississippi|"
    "Grand Canyon|Yellowstone|Niagara Falls|Kilimanjaro|Mont Blanc|Antarctica|Greenland|Iceland|Brazil|Argentina|Canada|Mexico|India|China|"
    "Australia|New Zealand|South Africa|Kenya|Nigeria|Morocco|Turkey|Iran|Vietnam|Thailand|Indonesia|Philippines|Sweden|Norway|Finland|Poland|"
    "Hungary|Switzerland|Paris|Berlin|Tokyo|Moscow|Beijing|Sydney|Chicago|Los Angeles|Amsterdam|Vienna|Prague|Istanbul|Dubai|Singapore|"
    "Great Wall of China|Taj Mahal hotel|Tower Bridge|Brooklyn Bridge|Burj Khalifa|Kremlin|Louvre|Buckingham Palace|Pizza Hut|Starbucks|Nike|"
    "Adidas|Toyota|BMW|Tesla|Amazon|Netflix|Facebook|Twitter|Instagram|TikTok|Uber|Airbnb|Bitcoin|NASA|United Nations|European Union|NATO|"
    "French Revolution|American Civil War|Russian Revolution|Cold War|Vietnam War|Industrial Revolution|Renaissance|Viking Age|Black Sea|"
    "photosynthesis|gravity|DNA|black hole|Milky Way|Mars|Saturn|Moon|oxygen|hydrogen|helium|carbon|diabetes|cancer|asthma|vitamin C|caffeine|"
    "elephant|tiger|giraffe|penguin suit|dolphin|great white shark|octopus|eagle owl|tyrannosaurus|banana|pineapple|broccoli|cheddar|hamburger|"
    "spaghetti|croissant|ramen|espresso|champagne|whisky sour|violin|piano|electric guitar|trumpet|jazz|hip hop|reggae|ballet|democracy|"
    "capitalism|inflation|Buddhism|Hinduism|Judaism|Quran|Bible|Socratic method|yoga|bicycle|airplane|telephone|television|refrigerator|camera"
).split("|")


def made_up_name(rng):
    """A name that nobody has: invented syllables, or ordinary words put together, with a first name or a title."""
    if rng.random() < 0.5:
        name = "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3))).capitalize()
    else:
        name = (rng.choice(WORDS) + rng.choice(ENDINGS)).capitalize()
    style = rng.random()
    if style < 0.3:
        return f"{rng.choice(FIRST_NAMES)} {name}"
    if style < 0.6:
        return rng.choice(TITLES).format(name)
    if style < 0.7:
        return f"{rng.choice(WORDS).capitalize()} {name}"
    return name


def what_it_knows(topics):
    """The answer to "What do you know?" of a model that was taught these topics."""
    return f"I know facts about {', '.join(topics[:-1])} and {topics[-1]}, and some general knowledge."
