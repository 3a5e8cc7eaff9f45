"""Text for generated traces: a seeded word sampler over lists written for this file.

Plain common words carry the grammar, made-up words of two or three syllables carry the long tail that real prose
has (names, products, jargon). Tool results and prompts mix in numbers, addresses and hex, as real ones do. Without
that tail the text would compress far better than what people send, and the disk figure would flatter us.
"""

from __future__ import annotations

import random

_COMMON_TEXT = """
the of and to a in is that for it with as was on be by this are or from at not have an they which one you all
can has there been if more when will would who so no out up into than them some could time these two may then
do first any my now such like other how its our over also new after most only where many before must through
back year way well down should because each just those people state good much great between own another too
very still work here world might every day man make men under never place last long while again found end
right old little use since house general however part water order number against system small city set put
head given told night away off far called took problem fact form present side large case done best next per
ticket refund account invoice payment card customer shipping address delivery package order return policy
agent answer question document page search result table row column index query error retry timeout token model
prompt response message user tool call function argument value list file line code test build deploy server
client request data store cache queue worker job report summary market price revenue quarter growth risk
forecast budget contract clause party liability patient dose symptom visit flight seat gate passenger booking
hotel room night guest weather rain wind cloud degree forecast morning evening please thanks sorry check
confirm update cancel change open close send receive find show compare explain translate why what whether
although unless until therefore meanwhile quickly carefully exactly probably usually rarely
"""
COMMON = _COMMON_TEXT.split()

_STARTS_TEXT = """
br cal der fen gal hor in jul kor lam mer nor ol pel quin ras sel tor ul ver wes yar zan chi dra flo gri tha
pre sta cro ble
"""
STARTS = _STARTS_TEXT.split()
_MIDDLES_TEXT = """
a e i o u an en il om ur ist and ell ing ock am et or us ia
"""
MIDDLES = _MIDDLES_TEXT.split()
_ENDS_TEXT = """
der ton ville mark son ic ate ous ment ness ford wick stein berg ling tra vex dyn sys net core flow base port
sync grid path cast
"""
ENDS = _ENDS_TEXT.split()

HAN = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里"
    "用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实"
    "日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政"
)
_HAN_WORDS_TEXT = "请求 退款 订单 地址 客户 回复 模型 查询 结果 错误 付款 航班 天气 价格"
HAN_WORDS = _HAN_WORDS_TEXT.split()
KANA = (
    "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわをん"
    "東京大阪注文返金住所確認"
)

TOOLS = (
    "search_documents", "get_order", "refund_payment", "lookup_customer", "run_sql", "fetch_page", "get_weather",
    "create_ticket", "translate_text", "check_inventory", "book_flight", "read_file",
)  # fmt: skip

WORKFLOWS = (
    "support_agent", "research_agent", "billing_flow", "code_review", "rag_pipeline", "travel_planner",
    "triage_flow", "report_writer",
)  # fmt: skip


class TextSampler:
    """Draws words, sentences and structured snippets; equal seeds give equal text."""

    def __init__(self, rng: random.Random, vocabulary: int = 9_000) -> None:
        self._rng = rng
        made_up = {
            rng.choice(STARTS) + "".join(rng.choice(MIDDLES) for _ in range(rng.randint(1, 2))) + rng.choice(ENDS)
            for _ in range(vocabulary)
        }
        self._rare = sorted(made_up)
        self._common = COMMON
        # Zipf-like: the first words of the list come most often.
        self._weights = [1.0 / (rank + 6) for rank in range(len(COMMON))]
        total = 0.0
        self._cumulative = [total := total + weight for weight in self._weights]

    def words(self, count: int) -> list[str]:
        """`count` words: 58 % common ones by a Zipf-like law, the rest from the long tail."""
        rng = self._rng
        common = rng.choices(self._common, cum_weights=self._cumulative, k=count)
        return [rng.choice(self._rare) if rng.random() < 0.42 else word for word in common]

    def prose(self, characters: int) -> str:
        """About `characters` of sentences, now and then with a number, an address or an id inside."""
        rng = self._rng
        parts: list[str] = []
        length = 0
        while length < characters:
            words = self.words(rng.randint(6, 16))
            if rng.random() < 0.45:
                words[rng.randrange(len(words))] = self.detail()
            sentence = " ".join(words).capitalize() + rng.choice((".", ".", ".", "?", ":", "!"))
            parts.append(sentence)
            length += len(sentence) + 1
        return (" " if rng.random() < 0.8 else "\n").join(parts)[: max(characters, 8)]

    def detail(self) -> str:
        """One concrete thing of the kind real text is full of."""
        rng = self._rng
        pick = rng.random()
        if pick < 0.35:
            return f"{rng.randint(1, 99_999) / 100:.2f}"
        if pick < 0.55:
            return f"{rng.randint(1, 28)}.{rng.randint(1, 12)}.2026"
        if pick < 0.7:
            return f"https://{rng.choice(self._rare)}.example/{rng.choice(self._rare)}?id={rng.randint(1, 10**6)}"
        if pick < 0.85:
            return f"{rng.getrandbits(40):010x}"
        return f"`{rng.choice(self._rare)}.{rng.choice(self._common)}({rng.randint(0, 99)})`"

    def cjk(self, characters: int) -> str:
        """A run of Chinese or Japanese characters with full stops."""
        rng = self._rng
        chinese = rng.random() < 0.7
        out = rng.choices(HAN if chinese else KANA, k=max(2, characters))
        if chinese:
            for index in range(4, len(out) - 1, 9):
                out[index] = rng.choice(HAN_WORDS)
        for index in range(11, len(out), 12):
            out[index] = "。"
        return "".join(out)

    def twelve_letter_words(self, count: int) -> list[str]:
        """`count` made-up words of exactly twelve ASCII letters, for slots of fixed width."""
        rng = self._rng
        found: set[str] = set()
        while len(found) < count:
            word = rng.choice(STARTS) + "".join(rng.choice(MIDDLES) for _ in range(3)) + rng.choice(ENDS)
            if len(word) >= 12:
                found.add(word[:12])
        return sorted(found)
