"""Prompts that text stages must agree about: short, long, empty, in several scripts, with marks of all kinds."""

from __future__ import annotations

PROMPTS = (
    "a cat",
    "",
    " ",
    "A clay fox walks through snow, soft light, 35mm.",
    'a sign that says "OPEN 24 h", red neon',
    "一只黏土狐狸走过雪地",
    "把背景换成夜晚的城市, 保持人物不变",
    "雪の中を歩く粘土の狐、柔らかい光",
    "눈 속을 걷는 점토 여우",
    "лиса из глины идёт по снегу",
    "ثعلب من الطين يمشي في الثلج",
    "émoji 🙂🦊 and a family 👨‍👩‍👧‍👦",
    "🎨",
    "  leading  spaces\n\nand new\tlines \n",
    "\n",
    "numbers 1234567890 and 3.14159, 50 % & <html> {braces} [brackets] | pipes",
    "under_score-and-hyphen, UPPER lower MiXeD, naïve café",
    "e\u0301 combining, zero\u200bwidth, non\u00a0breaking",
    "a very long prompt " + "with many words about foxes and snow, " * 32,
    "很长的提示 " * 90,
)
