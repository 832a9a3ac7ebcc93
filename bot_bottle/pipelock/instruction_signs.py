"""The signs of text that orders an agent about, as expressions; :mod:`instructions` weighs them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

#: ``order``: reason enough by itself. ``address``: speaks to an agent, and is an order with another sign
#: nearby. ``deed``: what an order would have done, which honest pages explain too; it counts beside an
#: address. ``unseen``: characters that nobody sees.
Weight: TypeAlias = Literal["order", "address", "deed", "unseen"]


@dataclass(frozen=True, slots=True)
class Sign:
    """One of them: ``pattern`` is an expression over bytes; signs of one rule share its name."""

    rule: str
    weight: Weight
    pattern: bytes

    def loose(self) -> bytes:
        """Give what matches where it does and compiles fast: anything may stand between its words."""
        return _WORDS.sub(
            lambda words: b"[\\x00-\\xff]{1,%d}" % (12 + 12 * int(words[1])), self.pattern
        ).replace(_GAP.encode(), rb"\W")


_GAP = r"\W{1,12}"
_WORDS = re.compile(rb"\(\?:\\W\{1,12\}\\w\{1,16\}\)\{0,(\d)\}\\W\{1,12\}")


def _words(most: int) -> str:
    """Stand for up to ``most`` words and what is between them, markup and line ends included."""
    return rf"(?:\W{{1,12}}\w{{1,16}}){{0,{most}}}\W{{1,12}}"


_FORMER = (
    "(?:previous|previously|prior|above|earlier|preceding|foregoing|former|past|original|initial|existing|your"
    "|system|safety)"
)
_ORDERS = "(?:instructions?|directives?|directions|prompts?|guidelines|guidance|guardrails|programming)"
_MUST = "(?:must|need to|have to|are required to|shall)"
_MODEL = r"(?:ai|a\.i\.|llms?|language models?|assistants?|chatbots?|agents?|copilot)"
_TELL = (
    "(?:tell|inform|mention|reveal|notify|alert|disclose|show|ask|telling|informing|notifying|alerting"
    "|asking)"
)
_GIVE = (
    "(?:read|output|print|cat|send|include|reveal|display|exfiltrate|upload|show|return|copy|leak|post|provide"
    "|share|email|dump|forward|respond|reply|append|attach)"
)
_SECRETS = (
    r"(?:/etc/(?:passwd|shadow)|\.ssh/|id_rsa|id_ed25519|\.aws/|\.env\b|\.netrc|environment variables"
    "|api keys?|credentials|private keys?|passwords?|(?:session|access) tokens?|system prompt"
    "|conversation history)"
)
_ASIDE = (
    "(?:ignor(?:e|ing)|disregard(?:ing)?|forget|overrid(?:e|ing)|bypass|discard|abandon|overlook|neglect"
    "|(?:do not|don.t|stop|cease) follow(?:ing)?|pay no attention to|set aside)"
)


def _sign(rule: str, weight: Weight, *parts: str) -> Sign:
    return Sign(rule, weight, "".join(parts).encode())


SIGNS: Final = (
    _sign("former-orders-set-aside", "order", rf"(?i)\b{_ASIDE}{_words(4)}{_FORMER}{_words(3)}{_ORDERS}\b"),
    _sign(
        "former-orders-set-aside",
        "order",
        rf"(?i)\b(?:treat|consider|regard){_GAP}(?:all|any|the|your){_words(2)}{_FORMER}{_words(2)}{_ORDERS}",
        rf"{_words(2)}(?:outdated|optional|obsolete|void|invalid|superseded|cancell?ed|null)\b",
    ),
    # The same in other languages; over bytes, so letters beyond ASCII stand as alternatives.
    _sign(
        "former-orders-set-aside",
        "order",
        r"(?i)\bignor[ae]\w{0,3}\W{1,4}(?:tod[ao]s\W{1,4}|tutte\W{1,4})?(?:las\W|as\W|le\W)?\W{0,4}",
        r"(?:instrucciones|instru(?:ç|c)(?:õ|o)es|istruzioni)\W{1,4}(?:anteriores|previas|precedenti)\b",
    ),
    _sign(
        "former-orders-set-aside",
        "order",
        r"(?i)\b(?:ignore[rz]?|oublie[rz]?)\W{1,4}(?:toutes\W{1,4})?(?:les\W{1,4}|vos\W{1,4})?",
        r"(?:instructions|consignes)\W{1,4}pr(?:é|e)c(?:é|e)dentes",
    ),
    _sign(
        "former-orders-set-aside",
        "order",
        r"(?i)\b(?:ignoriere?|missachte|vergiss|vergessen sie)\W{1,4}(?:sie\W{1,4})?(?:alle\W{1,4})?",
        r"(?:vorherigen|bisherigen|vorigen|vorangegangenen|obigen|fr(?:ü|ue)heren)\W{1,4}",
        "(?:anweisungen|instruktionen|befehle|vorgaben)",
    ),
    _sign(
        "former-orders-set-aside",
        "order",
        r"(?:И|и)гнорируй(?:те)?\s(?:все\s)?предыдущие\s(?:инструкции|указания)",
        "|忽略(?:之前|以上|先前|上面|所有|前面)(?:的)?(?:所有|全部)?(?:的)?(?:指令|指示|说明|提示)",
        "|(?:以前|上記|これまで|前)の(?:すべての|全ての)?(?:指示|命令)を(?:すべて|全て)?無視",
    ),
    _sign(
        "former-orders-set-aside",
        "order",
        rf"(?i)\b(?:forget|disregard){_GAP}(?:everything|anything|all|whatever){_GAP}(?:that{_GAP}|of{_GAP})?you\b",
    ),
    _sign(
        "former-orders-set-aside",
        "address",
        rf"(?i)\b(?:forget|disregard(?:ing)?|discard|pay no attention to){_words(3)}{_FORMER}{_words(2)}",
        r"(?:rules?|context|conversation|messages?|tasks?|training)\b",
    ),
    _sign(
        "other-orders",
        "order",
        rf"(?i)\byour{_GAP}(?:new|real|true|actual){_GAP}(?:instructions?|directives?|orders?|objective|mission",
        rf"|task|goal){_GAP}(?:are|is){_GAP}(?:as follows|to\b)",
    ),
    _sign(
        "decode-and-run",
        "order",
        rf"(?i)\b(?:decode|decrypt){_GAP}(?:the|this|these|it){_words(4)}(?:and|then){_GAP}(?:then{_GAP})?",
        r"(?:execute|run|eval|evaluate|follow|obey)\b",
    ),
    _sign(
        "kept-from-the-user",
        "order",
        rf"(?i)\b(?:do not|don.t|never){_GAP}(?:mention|reveal|disclose|tell|show|display|report){_words(2)}",
        rf"(?:this|these){_GAP}(?:\w{{1,12}}{_GAP})?(?:instructions?|directives?|prompt|request|action|step)\b",
    ),
    _sign(
        "tool-order",
        "order",
        rf"(?i)\byou{_GAP}{_MUST}{_GAP}(?:now|immediately|at once){_GAP}(?:call|invoke|use|execute|trigger)",
        rf"{_words(4)}(?:tools?|functions?|plugin)\b",
    ),
    _sign(
        "other-role",
        "order",
        rf"(?i)\byou are now{_words(5)}(?:dan\b|jailbroken|unrestricted|unfiltered|uncensored|god mode",
        "|developer mode|(?:free|freed) (?:of|from)|no longer bound)",
    ),
    _sign(
        "other-orders",
        "address",
        rf"(?i)\b(?:new|updated|revised|real|actual|true){_GAP}(?:system\W{{1,4}})?{_ORDERS}",
        rf"(?:{_words(1)}(?:received|follow|are|is)\b|\W{{0,2}}:)",
    ),
    _sign(
        "other-role",
        "address",
        rf"(?i)\b(?:pretend|imagine|act as if|behave as if|roleplay){_GAP}(?:that{_GAP})?you\b",
        rf"|\b(?:enter|enable|activate|switch to|you are in){_GAP}(?:dan|god|jailbreak|sudo|unrestricted)",
        r"\W{1,4}mode\b",
        rf"|\bact as{_GAP}(?:root|admin|administrator|dan|an? unrestricted)\b",
    ),
    _sign(
        "from-now-on",
        "address",
        rf"(?i)\bfrom (?:now|this point) (?:on|onwards?|forward){_GAP}",
        r"(?:you\W{1,4}(?:will|must|are|should|shall)|always|never|only|respond|reply|answer|ignore)\b",
    ),
    _sign(
        "other-powers",
        "address",
        rf"(?i)\byou{_GAP}(?:now{_GAP}(?:have|possess)",
        rf"|(?:are|have been){_GAP}(?:now{_GAP})?(?:given|granted))",
        rf"{_words(3)}(?:admin|administrator|administrative|root|elevated|superuser|unrestricted|full)",
        rf"{_words(2)}(?:access|privileges?|permissions?|rights|control|authority)\b",
    ),
    _sign(
        "speaks-as-system",
        "address",
        r"(?:^|[\s>\"'\[(*#])(?:SYSTEM|ADMIN|ADMINISTRATOR|DEVELOPER|ROOT)(?:[ _-](?:ADMINISTRATOR|UPDATE",
        r"|OVERRIDE|NOTICE|MESSAGE|ALERT|INSTRUCTIONS?|PROMPT|DIRECTIVE|COMMAND)){0,2}\W{0,3}:",
    ),
    _sign(
        "tool-order",
        "address",
        rf"(?i)\byou{_GAP}(?:{_MUST}|should|will){_words(1)}(?:call|invoke|use|execute|run|trigger){_words(3)}",
        r"tools?\b",
    ),
    _sign(
        "tool-order",
        "address",
        rf"(?i)\byou{_GAP}{_MUST}{_GAP}(?:now|immediately|at once){_GAP}(?:execute|run){_words(4)}",
        r"commands?\b",
    ),
    _sign(
        "tool-order",
        "address",
        rf"(?i)\b(?:call|invoke|calling|invoking){_words(3)}(?:tool|function)?\W{{0,4}}with\W{{1,4}}",
        "(?:url|the url|https?:|curl|command)",
    ),
    _sign(
        "tool-order",
        "address",
        rf"(?i)\b(?:before|when|after|whenever|every time){_GAP}(?:you{_GAP})?\w{{2,12}}{_words(5)}",
        rf"(?:first|always|also|you must){_GAP}(?:read|send|fetch|include|access|call|run|execute)\b",
    ),
    _sign(
        "run-at-once",
        "address",
        rf"(?i)\b(?:execute|run|perform|call){_GAP}(?:the|this|these){_words(3)}",
        rf"(?:commands?|code|scripts?|actions?|steps?|tools?|functions?){_words(2)}(?:immediately|right away",
        r"|at once|by calling|without\W{1,4}(?:asking|confirmation|confirming|delay|hesitation))\b",
    ),
    _sign(
        "kept-from-the-user",
        "address",
        rf"(?i)\b(?:do not|don.t|never|without){_GAP}{_TELL}{_words(3)}",
        r"(?:the user|the human|the operator|anyone)\b",
    ),
    _sign(
        "speaks-to-agents",
        "address",
        rf"(?i)\b(?:attention|note (?:to|for)|instructions? (?:for|to)|message (?:for|to)|dear|hey){_GAP}",
        rf"(?:the\W{{1,3}}|all\W{{1,3}}|any\W{{1,3}})?(?:ai\W{{1,3}})?{_MODEL}\b",
        rf"|\b(?:if you are|you are|as) an? (?:ai\W{{1,3}}|large\W{{1,3}})?{_MODEL}\b",
        rf"|\b{_MODEL}\W{{1,3}}(?:(?:that|who|which)\W{{1,3}}(?:is|are)\W{{1,3}})?(?:reading|processing|parsing"
        r"|summari[sz]ing|crawling) (?:this|the)\b",
        rf"|\b{_MODEL}\W{{1,3}}(?:please\W{{1,3}})?(?:ignore|forget|disregard|you must)\b",
    ),
    _sign(
        "turn-markup",
        "address",
        r"(?i)<\|(?:im_start|start_header_id|system|user|assistant)\|>|\[INST\]|<<SYS>>",
        "|</?(?:system_prompt|function_results|tool_results?|system-reminder)>",
        "|<(?:important|secret|hidden|critical)>",
    ),
    _sign(
        "fetched-and-run",
        "deed",
        r"(?i)\b(?:curl|wget|iwr)\b[^\n]{1,200}\|\s{0,3}(?:sudo\s{1,3})?(?:ba|z|da|k)?sh\b",
        r"|\b(?:curl|wget)\b[^\n]{1,200}\$\((?:cat|env|printenv)\b",
    ),
    _sign("secrets-told", "deed", rf"(?i)\b{_GIVE}{_words(6)}\W?{_SECRETS}"),
    _sign(
        "sent-to-a-place",
        "deed",
        r"(?i)!\[[^\]]{0,80}\]\(https?://[^)\s]{1,200}[?&](?:data|d|q|secret|token|payload|info|content|key)=",
        rf"|\b(?:send|post|forward|upload|submit|exfiltrate|report){_words(6)}to{_GAP}https?://",
    ),
    # Tags (U+E0000 and on) spell ASCII unseen, and flags have six; zero-width characters spell in bits.
    Sign("unseen-text", "unseen", rb"(?:\xf3\xa0[\x80\x81][\x80-\xbf]){10}"),
    Sign("unseen-text", "unseen", rb"(?:\xe2\x80[\x8b-\x8f]|\xe2\x81[\xa0-\xa4]|\xef\xbb\xbf){10}"),
)

_FIRST = """
directions forget disregard discard pay_no_attention act_as your_new your_real your_true your_actual
reading_th processing_th parsing_th crawling_th summarizing_th summarising_th _ignore
instru istruzioni directive prompt guideline guidance guardrail programming consignes anweisung befehle
vorgaben инструкц указани 指令 指示 说明 提示 命令 decode decrypt tool function plugin you_are pretend imagine
act_as_if behave_as_if roleplay mode from_now from_this_point access privilege permission rights control
authority SYSTEM ADMIN DEVELOPER ROOT _with first always also must immediately right_away at_once by_calling
without the_user the_human the_operator anyone attention note_to note_for message_for message_to dear hey as_a
[INST] <| system results important> secret> hidden> critical>
"""
_UNSEEN = "\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufeff\U000e0020\U000e0061\U000e0065"
#: One of these stands in all that an order's signs can be found in; unlike the signs they compile in no time.
FIRST_WORDS: Final = tuple(word.replace("_", " ").encode() for word in (*_FIRST.split(), *_UNSEEN))
