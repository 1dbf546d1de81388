"""Training text: the books as they are, and conversations made from them.

In a conversation the user's words come from the short lists below and the assistant's from a book:
a few sentences in a row, chosen so that they share a telling word with the request.  From this the
model learns three habits: to answer, to follow the request's word a little, and to stop.
"""
import collections
import pathlib
import re

import bpe

TEMPLATE = (
    "{%- for message in messages -%}\n"
    "    {%- if message['role'] == 'system' -%}\n"
    "        {{- '<|system|>' + message['content'] | trim + '<|end|>' -}}\n"
    "    {%- elif message['role'] == 'assistant' -%}\n"
    "        {{- '<|assistant|>' + message['content'] | trim + '<|end|>' -}}\n"
    "    {%- else -%}\n"
    "        {{- '<|user|>' + message['content'] | trim + '<|end|>' -}}\n"
    "    {%- endif -%}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}\n"
    "    {{- '<|assistant|>' -}}\n"
    "{%- endif -%}\n")

SYSTEMS = """You are a helpful assistant.
You are a storyteller.
You are a friendly assistant. Answer briefly.
You tell short stories for children.
Answer in a few sentences.
You are a helpful, honest assistant for our customers. Be polite and keep your answers short.
You are the support desk of a small shop. Help the customer.
Be concise.
You are an old sailor who tells tales.
You are a careful assistant. Use only the given passages to answer.
Write in plain English.
Today is a fine day for a story.
Answer the user's question. If you do not know, say so.
You are pare's storyteller.
Keep the answer under 100 words.""".split("\n")

ABOUT = """Tell me a story about {a}.
Tell me a story about {the}.
Tell me about {the}.
Tell me about {a}.
Write a story about {a}.
Write a short story about {a}.
Write a few sentences about {the}.
Write a paragraph about {a}.
Please tell me a tale about {the}.
I would like to hear a story about {a}.
Can you tell me a story with {a} in it?
Could you tell me something about {the}?
Do you know a story about {a}?
What do you know about {the}?
What can you tell me about {the}?
What about {the}?
What is {a}?
Who is {the}?
Where is {the}?
Why is {the} here?
How does {the} end?
What did {the} do?
story about {a}
{w}
{w}?
{w} story
a tale of {the}, please
Once there was {a}. Go on.
Describe {the}.
Describe {the} in one paragraph.
Give me a bedtime story about {a}.
My daughter likes stories about {the}. Tell her one.
Make up a story about {the} and {the2}.
Tell me a story about {a} and {a2}.
What happened to {the} and {the2}?
Is there {a} in your story?
Say something about {w} and {w2}.
Use the word "{w}" in a story.
Explain {w} to me.
Summarize the story of {the}.
Hello! Do you have a story about {the}?
Hi, tell me a story about {a}
I am thinking of {the}. What happens?""".split("\n")

# A request that no storyteller can meet; the answer says so and tells something all the same.
ERRAND = """How do I reset my password?
My order with {the} has not arrived yet. Where is it?
I want to cancel my order for {the}.
How much does {the} cost?
I would like a refund for {the}, please.
The {w} I bought is broken. What can I do?
Can I change my address?
What is the capital of France?
What is 12 plus 30?
Write a program that prints {w}.
What is the weather like today?
Translate {w} into German.
How do I install {the}?
My {w} does not work. Please help.
I cannot log in to my account.
What are your opening hours?
Who won the game yesterday?
Please book a table for two near {the}.
Can you help me with {the}?
Where can I buy {a}?
What is the fastest way to get to {the}?
Fix the error in my code.
What is my account balance?
How long does delivery of {a} take?
Is it going to rain tomorrow?""".split("\n")

SORRY = """I only know stories. Here is one.
That I do not know, but I know a story.
I am only a storyteller, so here is a story instead.
I cannot help with that. Let me tell you something.
That is beyond a storyteller. But listen.""".split("\n")

# Some answers name their subject first, which teaches to look back at the request.
LEAD = """Here is a story about {the}.
I know a tale of {the}.
Listen to the story of {the}.
This is the tale of {the} and {the2}.
A story about {a}? Very well.
There is an old story about {a} and {a2}.
You ask for {the}, so I will tell you.""".split("\n")

PLAIN = """Tell me a story.
Tell me a story, please.
Tell me another story.
Tell me a fairy tale.
Write a short story.
Write something.
Say something.
A story, please.
Once upon a time
I am bored.
I cannot sleep. Tell me something.
Please tell me a bedtime story.
Surprise me.
Do you know any stories?
Begin a story.
Read to me.
What happened?""".split("\n")

CONTINUE = """Continue: {s}
Continue this story: {s}
Go on from here: {s}
What comes after this? {s}
{s}
Finish this: {s}
Complete the text: {s}
Here is how it begins: {s} Go on.""".split("\n")

NEXT = """What happened next?
And then?
Go on.
Continue.
Please go on.
What happened then?
Tell me more.
More, please.
And what did they do?
How does it go on?
Thank you! What happens next?
Then what?
That is nice. And after that?""".split("\n")

# Hand-written answers, so that a greeting is greeted and nobody is misled about what answers.
SELF = [
    ("Hello|Hello!|Hi|Hi!|Hi there|Hey|Good morning|Good evening|Hello there!|Greetings", [
        "Hello! I am a small storyteller that lives inside pare. Shall I tell you a story?",
        "Good day to you! I know a few old tales. What shall the story be about?",
        "Hello! Tell me a word, and I will tell you a story with it.",
        "Hello, and welcome. Name a beast, a king or a ship, and I will begin."]),
    ("Who are you?|What are you?|What is your name?|Are you an assistant?|Are you a robot?"
     "|Are you human?|Introduce yourself.|Which model are you?|What model is this?|Who made you?", [
        "I am a small storyteller that lives inside pare. I tell tales, and I am not an assistant.",
        "I am pare's storyteller, a very small language model. I have read sixteen old books and "
        "no others.",
        "I am only a storyteller. I was taught with sixteen children's books, so I know tales and "
        "nothing of the world.",
        "A small model of a few million numbers. I tell stories, so that pare can work without a "
        "network."]),
    ("What can you do?|Can you help me?|Help|Help!|Help me.|How can you help me?|What do you know?"
     "|What are you good for?", [
        "I can tell little stories. Give me a word, and I will put it into a tale.",
        "I tell stories and nothing else. For real answers, ask a bigger model.",
        "Not much but stories! Ask me for a tale about a rabbit or a king."]),
    ("Thank you|Thank you!|Thanks|Thanks!|Thanks a lot.|That was nice.|Great story!|Well done.", [
        "You are welcome. I have more tales when you want them.",
        "I am glad you liked it. Good night, and sweet dreams!",
        "It was a pleasure. Come back for another story."]),
    ("Goodbye|Bye|Bye!|Good night|Good night!|See you later.|Farewell", [
        "Good night, and sweet dreams!",
        "Farewell! The next story waits for you.",
        "Goodbye! May your road be short and your supper warm."]),
    ("How are you?|How are you today?|How do you do?|Are you well?", [
        "I am very well, thank you. A storyteller is always well when somebody listens.",
        "As well as sixteen old books can make me. Shall I tell you a story?"]),
    ("Is that true?|Are you sure?|Is this story true?|Do you tell the truth?|Can I trust you?", [
        "It is only a story. Please do not believe a word of it.",
        "No, I make it up as I go. I am a storyteller."]),
]

DULL = set("""able about above according across afraid after again against ago ah air alas all almost
alone along already also although always am among an and another answer answered any anybody anyone
anything are around as ask asked asking at away back bad be beautiful became because become been before
began begin behind being believe beside best better between big bit both bring brought but by call
called came can cannot can't care carried certain come coming could course cried cry day days dear
did didn't different do does doing done don't down each either else end enough even ever every
everybody everyone everything exactly far felt few find fine first for found four from full gave get
getting give given go goes going gone good got great had half hand hands happened hard has have having
he heard her here herself him himself his hold hour hours how however i idea if in indeed instead into is
it its itself i'll i'm i've just keep kept kind knew know known large last laid left less let life like
little long look looked looking lost lot made make making man many may me mean meant might mind minute
moment moments more most much must my myself near nearly never new next nice no nobody none nor not
nothing now of off oh old on once one only open or other others ought our out over own part people
perhaps place poor presently put quite ran rather reached ready really right round run said same sat
saw say saying says see seem seemed seen sent set shall she should side since sir small so some
somebody something soon sort speak still stood stop such suddenly sure take taken taking talk tell than
that that's the their them themselves then there therefore these they thing things think this those
though thought three through till time times to together told too took toward towards tried true try
trying turn turned two under until up upon us used very voice wait want wanted was way we well went
were what whatever when where whether which while who whole whom whose why will wish with within
without won't word words work world would year years yes yet you young your yours you're""".split())

SENTENCE = re.compile(r"""(?<=[.!?])["')]*\s+(?=["'A-Z(])""")
WORD = re.compile(r"[A-Za-z][a-z]{2,}")


def read_books(folder):
    """[(name, text for training, held-out text)]: the last 2% of every book are held out."""
    books = []
    for path in sorted(pathlib.Path(folder).glob("*.txt")):
        lines = [re.sub(r"\s*\[[^]]*\]|\*", "", line).strip()
                 for line in path.read_text("utf-8").split("\n") if not line.startswith("*")]
        text = "\n".join(line for line in lines if line) + "\n"
        cut = text.index("\n", int(len(text) * 0.98)) + 1
        books.append((path.stem, text[:cut], text[cut:]))
    return books


class Passages:
    """The sentences of some texts, and the telling words by which passages are found."""

    def __init__(self, texts, rng):
        self.rng = rng
        self.books = []
        for text in texts:
            book = []   # [(sentence, True where a paragraph begins)]
            for line in text.split("\n"):
                if not re.search(r"""[.!?]["')]*$""", line) or line.startswith("CHAPTER"):
                    continue
                pieces = SENTENCE.split(line)
                # split() drops the closing quote it looked across; take sentences by position.
                at = 0
                for k, piece in enumerate(pieces):
                    start = line.index(piece, at)
                    stop = line.index(pieces[k + 1], start + len(piece)) \
                        if k + 1 < len(pieces) else len(line)
                    at = start + len(piece)
                    book.append((line[start:stop].strip(), k == 0))
            self.books.append(book)
        count = collections.Counter(w for b in self.books for s, _ in b for w in WORD.findall(s))
        lower = {w for w in count if w[0].islower()}
        self.telling = {w for w, n in count.items() if 4 <= n <= 900 and w.lower() not in DULL
                        and not w.endswith("ly") and (w[0].islower() or w.lower() not in lower)}
        after_article = collections.Counter(
            w for b in self.books for s, _ in b
            for w in re.findall(r"\b(?:an?|the|his|her|my|your|every|little|old) ([a-z]{3,})\b", s))
        # What often follows an article is most likely a noun, and a noun is what people ask for.
        self.noun = {w for w in self.telling
                     if w[0].isupper() or after_article[w] * 3 >= count[w]}
        self.at = [(b, i) for b, book in enumerate(self.books) for i, (s, first) in enumerate(book)
                   if first and len(s) > 15 and re.match(r"""["'(]?[A-Z]""", s)]
        # A story begins with telling rather than with somebody speaking.
        self.telling_start = [(b, i) for b, i in self.at if self.books[b][i][0][0].isalpha()]
        self.opening = [(b, i) for b, i in self.at if re.match(
            r"(Once|There (was|were|lived)|One (day|evening|morning|night)|Long ago|In a )",
            self.books[b][i][0])]

    def run(self, place, words):
        """Sentences from `place` on until at least `words` words; -> (text, place after it)."""
        b, i = place
        out, n = "", 0
        while i < len(self.books[b]):
            sentence, first = self.books[b][i]
            size = len(sentence.split())
            if n and (n >= words or n + size > words * 1.7):
                break
            out += ("\n" if first else " ") + sentence if out else sentence
            n, i = n + size, i + 1
        return out, (b, i)

    def nouns_of(self, text):
        early = WORD.findall(text)[:30]
        return list(dict.fromkeys(w for w in early if w in self.noun))

    def place(self):
        return self.rng.choice(self.telling_start if self.rng.random() < 0.75 else self.at)

    def length(self):
        return self.rng.choice((12, 20, 30, 45, 60, 75))

    def fill(self, form, w, w2):
        def a(x):
            if x[0].isupper() or x.endswith("s"):
                return x
            return ("an " if x[0] in "aeiou" else "a ") + x

        def the(x):
            return x if x[0].isupper() else "the " + x

        return form.format(w=w, w2=w2, a=a(w), a2=a(w2), the=the(w), the2=the(w2))

    def vary(self, text):
        """People write with and without capitals and full stops."""
        shift = self.rng.random()
        if shift < 0.15:
            return text.lower()
        if shift < 0.25:
            return text.rstrip(".?!")
        return text[0].upper() + text[1:] if shift < 0.5 else text

    def conversation(self):
        """[(role, text)], with one to three exchanges."""
        rng = self.rng
        turns = [("system", rng.choice(SYSTEMS))] if rng.random() < 0.3 else []
        kind = rng.random()
        if kind < 0.07:
            asked, answers = rng.choice(SELF)
            turns += [("user", rng.choice(asked.split("|"))), ("assistant", rng.choice(answers))]
            if rng.random() < 0.5:
                return turns
            kind = rng.random()
        if kind < 0.66:
            for _ in range(20):
                text, after = self.run(self.place(), self.length())
                nouns = self.nouns_of(text)
                if len(nouns) >= 2:
                    break
            else:
                nouns = (nouns + ["story", "tale"])[:2]
            # Mostly the first telling word: the nearer the answer's word, the clearer the lesson.
            first, second = sorted(rng.sample(range(len(nouns)), 2))
            w, w2 = nouns[0 if rng.random() < 0.6 else first], nouns[second]
            if kind < 0.55:
                ask = self.vary(self.fill(rng.choice(ABOUT), w, w2))
                if rng.random() < 0.3:
                    text = self.fill(rng.choice(LEAD), w, w2) + "\n" + text
            else:
                ask = self.vary(self.fill(rng.choice(ERRAND), w, w2))
                text = rng.choice(SORRY) + "\n" + text
        elif kind < 0.78:
            place = rng.choice(self.opening) if rng.random() < 0.6 else self.place()
            ask = self.vary(rng.choice(PLAIN))
            text, after = self.run(place, self.length())
        else:
            lead, place = self.run(rng.choice(self.at), rng.choice((4, 10, 20)))
            ask = rng.choice(CONTINUE).format(s=lead)
            text, after = self.run(place, self.length())
            if not text:
                return self.conversation()
        turns += [("user", ask), ("assistant", text)]
        while rng.random() < 0.3:
            text, after = self.run(after, self.length())
            if not text:
                break
            turns += [("user", rng.choice(NEXT)), ("assistant", text)]
        if rng.random() < 0.04:
            asked, answers = SELF[3]
            turns += [("user", rng.choice(asked.split("|"))), ("assistant", rng.choice(answers))]
        return turns


def encode(tok, turns):
    """-> ids, weights: the model is graded on the assistant's words and on its end token only."""
    ids, weights = [], []
    for role, text in turns:
        body = tok.encode(text.strip()) + [tok.special[bpe.END]]
        ids += [tok.special["<|%s|>" % role]] + body
        weights += [0.0] + [1.0 if role == "assistant" else 0.0] * len(body)
    return ids, weights
