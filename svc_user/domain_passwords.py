"""The rules of new passwords (NIST SP 800-63B). Pure: no I/O, no clock, no proto.

Instead of a list of leaked passwords, the words and patterns that make up the commonest of them: a password is rejected
when nothing but such a word, a sequence or a repetition remains of it without digits, punctuation and substitutions.
"""

import re
import unicodedata

from shop.user.v1.user_errors import PasswordRejected

#: Characters that can be seen, at least.
SHORTEST = 8

_WORD_LIST = """
abc access account admin administrator adobe alexander amanda america andrea andrew angel angela anthony apple arsenal
ashley asdf asdfgh asdfghjkl austin autumn azerty babygirl bailey banana barcelona baseball basketball batman benjamin
buster butterfly changeme charlie cheese chelsea chicken chocolate christian computer cookie corvette cowboy daniel
dallas default demo diamond dragon eagle elephant england everton family fashion ferrari flower football forever
freedom friend friends fuckyou garden george ginger google guest hannah happy harley hello helloworld hockey hunter
iloveu iloveyou internet jackson jasmine jennifer jessica jordan joseph joshua justin killer letmein liverpool login
london lovely loveme love lovers magic maggie manager marina master matrix matthew mercedes merlin michael michelle
midnight minecraft monday money monkey mother mustang mynoob naruto nicole nintendo number office oliver orange
pass passw password passwd passphrase passwort peanut pepper personal phoenix pokemon prince princess purple
qazwsx qazwsxedc qwer qwert qwerty qwertyuiop qwertz rainbow rangers robert root samantha samsung scorpion secret
secure security server shadow shopmesh shop silver skywalker snoopy soccer sophie spiderman spring starwars summer
sunday sunflower sunshine superman superstar support sweety system taylor test tester testing thailand thomas thunder
tigger tiger trustno trustnoone user username victoria welcome whatever william winter wizard xxx yankees yellow
zaqxsw zxcvbn zxcvbnm zaqwsx
"""
_WORDS = frozenset(_WORD_LIST.split())
_ROWS = (
    "01234567890", "abcdefghijklmnopqrstuvwxyz", "qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "azertyuiop",
    "1q2w3e4r5t6y7u8i9o0p", "1qaz2wsx3edc4rfv5tgb6yhn", "qazwsxedcrfvtgbyhn",
)  # fmt: skip
_SUBSTITUTES = str.maketrans("013457@$!€", "oleastasie")
_INVISIBLE = ("C", "Z", "M")


def normalized(password: str) -> str:
    """Return one spelling of the characters, whose encoding depends on the keyboard and the system."""
    return unicodedata.normalize("NFKC", password)


def check_password(password: str, email: str) -> None:
    """Raise PasswordRejected for a new password that is too short, too common, or the user's own email address."""
    text = normalized(password)
    if sum(unicodedata.category(character)[0] not in _INVISIBLE for character in text) < SHORTEST:
        raise PasswordRejected(problem=f"has fewer than {SHORTEST} visible characters")
    folded = text.casefold().strip()
    if folded in (email, email.partition("@")[0]):
        raise PasswordRejected(problem="is the email address")
    if _is_common(folded):
        raise PasswordRejected(problem="is one of the commonest")


def _is_common(folded: str) -> bool:
    squeezed = re.sub(r"[\W_]+", "", folded)
    if len(set(squeezed)) < 4 or _is_repeated(squeezed) or _is_sequence(squeezed):
        return True
    letters = re.sub(r"[^a-z]+", "", folded)
    substituted = re.sub(r"[^a-z]+", "", folded.rstrip("0123456789!?.@#$*_-").translate(_SUBSTITUTES))
    plain = folded.isascii()  # a word of another script is no remainder of punctuation
    return plain and any(len(one) < 3 or _is_words(one) or _is_sequence(one) for one in (letters, substituted))


def _is_words(text: str) -> bool:
    """Return whether a text is one common word, or the same one or two of them."""
    return any(text[:at] in _WORDS and (at == len(text) or text[at:] in _WORDS) for at in range(3, len(text) + 1))


def _is_repeated(text: str) -> bool:
    return any(text == text[:size] * (len(text) // size) for size in range(1, len(text) // 2 + 1))


def _is_sequence(text: str) -> bool:
    return len(text) > 3 and any(text in line or text in line[::-1] for row in _ROWS for line in (row, row * 2))
