"""Sentences for the synthesisers: English from a small grammar with a wide vocabulary, other languages from phrase lists.

Every English phone occurs often, bilabials and rounded vowels on purpose. Invented words and shuffled phrases bring the sound
sequences that a vocabulary lacks. Written for this project.
"""

from __future__ import annotations

import numpy as np

_NAMES = [
    "Mary", "Bob", "Peter", "Amanda", "Philip", "Beth", "Tom", "Paula", "Walter", "Fiona", "Judy", "George", "Omar", "Shirley",
    "Theo", "Zoe", "Vivian", "Hugh", "Ingrid", "Bruno",
]  # fmt: skip
_NOUNS = [
    "apple", "bottle", "problem", "movie", "boat", "bumblebee", "pepper", "umbrella", "photograph", "window", "river",
    "mountain", "camera", "table", "baby", "puppet", "computer", "shoe", "juice", "voice", "thought", "leather", "feather",
    "village", "garden", "orange", "question", "measure", "television", "system", "number", "morning", "evening", "market",
    "summer", "winter", "paper", "bubble", "map", "lamp", "bridge", "museum", "coffee", "thumb", "tooth", "judge", "church",
    "wolf",
]  # fmt: skip
_ADJECTIVES = [
    "big", "small", "beautiful", "purple", "warm", "cold", "quiet", "loud", "smooth", "rough", "famous", "empty", "open",
    "broken", "modern", "simple", "important", "wooden", "blue", "thoughtful", "usual", "foggy", "yellow", "new", "old",
    "perfect", "marvelous", "tiny", "enormous", "cheap", "awful",
]  # fmt: skip
_VERBS = [
    "bought", "moved", "opened", "watched", "pushed", "pulled", "found", "measured", "imagined", "brought", "washed", "admired",
    "painted", "forgot", "remembered", "followed", "chose", "improved", "shipped", "wrote", "heard", "showed", "built", "threw",
    "put", "kept", "left",
]  # fmt: skip
_PLACES = [
    "in the park", "at home", "by the river", "before breakfast", "on the bus", "near my house", "over the bridge",
    "after the show", "without a map", "from above", "for the whole family", "about five people", "while we were away",
    "above the blue water", "all the way to Moscow",
]  # fmt: skip
_OPENERS = [
    "Well,", "Maybe", "Of course", "Yesterday", "Hello,", "I believe", "Please remember that", "By the way,", "Oh,",
    "We hope that", "You know,", "Honestly,", "Thank you,", "This morning", "My boss says that", "Above all,", "How about this:",
    "Wow,",
]  # fmt: skip
_ONSETS = [
    "b", "bl", "br", "ch", "d", "dr", "f", "fl", "fr", "g", "gl", "h", "j", "k", "kl", "l", "m", "n", "p", "pl", "pr", "r", "s", "sh",
    "sk", "sl", "sm", "sn", "sp", "st", "str", "t", "th", "tr", "v", "w", "y", "z", "sw", "tw",
]  # fmt: skip
_NUCLEI = ["a", "a", "e", "i", "o", "u", "aa", "ee", "oo", "ai", "ow", "oy", "ar", "er", "or", "ou", "ea", "y"]
_CODAS = ["", "", "", "b", "m", "p", "n", "t", "d", "k", "f", "v", "s", "sh", "ch", "th", "l", "ng", "mp", "nd", "st", "mb", "lf"]
OTHER_LANGUAGES: dict[str, tuple[str, ...]] = {
    "de": (
        "Guten Morgen, mein Name ist Paul und ich wohne am Bahnhof.", "Wir möchten bitte vier Becher Apfelsaft und ein Brötchen.",
        "Am Abend bummeln viele Menschen über die Brücke.", "Das Problem war schwierig, aber wir haben es geschafft.",
        "Übermorgen kommt meine Mutter zu Besuch.", "Können Sie das bitte noch einmal wiederholen?",
    ),
    "fr": (
        "Bonjour, je m'appelle Béatrice et j'habite à Paris.", "Un petit bout de papier est tombé sous la table.",
        "Pouvez-vous me montrer le chemin du musée?", "Nous avons beaucoup aimé la pomme et le fromage.",
        "Il fait beau ce matin, mais il pleuvra ce soir.", "Je voudrais boire un peu d'eau.",
    ),
    "es": (
        "Buenos días, me llamo Pablo y vivo cerca del mar.", "Mi abuela compró una bombilla nueva para el baño.",
        "El problema es más simple de lo que pensamos.", "Por la mañana bebemos un poco de café.",
        "Mañana vamos a empezar un trabajo muy importante.", "Ábreme la puerta, por favor.",
    ),
    "it": (
        "Buongiorno, mi chiamo Bruno e abito a Bologna.", "La bambina mangia una mela sul ponte.",
        "Abbiamo comprato sei bottiglie di acqua.", "Puoi ripetere per favore un po' più piano?",
    ),
    "pt": (
        "Bom dia, meu nome é Paula e moro perto da praia.",
        "Podemos começar a reunião amanhã pela manhã.",
        "O bebê bebeu um copo de água.",
    ),
    "ru": (
        "Доброе утро, меня зовут Борис, я живу в большом доме.",
        "Мама купила новую лампу и яблоки.",
        "Пожалуйста, повторите ещё раз.",
    ),
    "cmn": ("你好，我叫王明，我住在北京。", "妈妈买了八个苹果和一本书。", "请你再说一遍，好不好？", "我们明天早上去公园跑步。"),
    "ja": (
        "おはようございます、私の名前は山本です。",
        "お母さんは新しいパンを買いました。",
        "もう一度お願いします。",
        "今晩は友達とピザを食べます。",
    ),
    "hi": ("नमस्ते, मेरा नाम अमित है।", "माँ बाज़ार से आम और पपीता लाई।", "कृपया एक बार फिर बोलिए।"),
    "tr": (
        "Günaydın, benim adım Berk ve İstanbul'da yaşıyorum.",
        "Annem pazardan bir şişe su ve peynir aldı.",
        "Lütfen bir kez daha söyler misiniz?",
    ),
    "pl": (
        "Dzień dobry, mam na imię Paweł i mieszkam w Poznaniu.",
        "Mama kupiła piękną białą lampę.",
        "Proszę powtórzyć jeszcze raz.",
    ),
    "nl": (
        "Goedemorgen, mijn naam is Bram en ik woon in Utrecht.",
        "We hebben vijf boeken over bomen gekocht.",
        "Kunt u dat alstublieft herhalen?",
    ),
    "ar": ("صباح الخير، اسمي محمد وأسكن قرب البحر.", "أمي اشترت خبزا وماء.", "من فضلك، أعد مرة أخرى."),
    "fi": (
        "Hyvää huomenta, minun nimeni on Pekka ja asun Tampereella.", "Äiti osti uuden lampun ja omenoita, mutta bussi oli myöhässä.",
        "Voisitko ystävällisesti sanoa sen vielä kerran?", "Pieni poika juoksi pitkin puiston polkua.",
        "Huomenna menemme mökille uimaan ja saunomaan.",
    ),
    "ko": ("안녕하세요, 제 이름은 박민수입니다.", "엄마가 빵과 물을 샀어요.", "다시 한번 말씀해 주세요."),
}  # fmt: skip


def english_sentence(rng: np.random.Generator) -> str:
    """One or two clauses, sometimes with a number in it."""

    def pick(words: list[str]) -> str:
        return str(words[rng.integers(len(words))])

    clause = f"{pick(_NAMES)} {pick(_VERBS)} the {pick(_ADJECTIVES)} {pick(_NOUNS)} {pick(_PLACES)}"
    roll = rng.random()
    if roll < 0.25:
        clause = f"{pick(_OPENERS)} {clause}"
    elif roll < 0.4:
        clause = f"{clause}, and the {pick(_NOUNS)} is {pick(_ADJECTIVES)}"
    elif roll < 0.5:
        count = int(rng.integers(2, 2000))
        clause = f"{pick(_NAMES)} and {pick(_NAMES)} {pick(_VERBS)} {count} {pick(_ADJECTIVES)} {pick(_NOUNS)}s"
    elif roll < 0.6:
        modal = pick(["would", "should", "could"])
        clause = f"Why {modal} {pick(_NAMES)} want a {pick(_ADJECTIVES)} {pick(_NOUNS)} {pick(_PLACES)}?"
    elif roll < 0.8:
        clause = " ".join(invented_word(rng) if rng.random() < 0.5 else word for word in clause.split())
    return clause + "."


def invented_word(rng: np.random.Generator) -> str:
    """One to three syllables that English spelling rules can read."""

    def pick(parts: list[str]) -> str:
        return str(parts[rng.integers(len(parts))])

    return "".join(pick(_ONSETS) + pick(_NUCLEI) + pick(_CODAS) for _ in range(int(rng.integers(1, 4))))


def foreign_sentence(language: str, rng: np.random.Generator) -> str:
    """A phrase of the list, or as often words of all of them in any order."""
    phrases = OTHER_LANGUAGES[language]
    words = " ".join(phrases).translate(str.maketrans("", "", ".,?!")).split()
    if len(words) < 3 * len(phrases) or rng.random() < 0.5:  # languages written without spaces keep their phrases
        return phrases[int(rng.integers(len(phrases)))]
    return " ".join(str(word) for word in rng.choice(words, size=int(rng.integers(4, 10)))) + "."
