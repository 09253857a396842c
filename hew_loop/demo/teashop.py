"""The throw-away repository of the demo and its twelve tasks, which show in one run what can become of a task."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Literal

NAME = "teashop"

FILES = {
    "README.md": "# Tea shop\n\nMade by `loop demo`. Look around, then throw it away.\n",
    ".gitignore": "__pycache__/\n",
    "shop/__init__.py": '"""A tea shop."""\n',
    "shop/shelves.py": 'SHELVES = [\n    "tea",\n]\n',
    "tests/__init__.py": "",
    "tests/test_shop.py": """\
import importlib
import pkgutil
import unittest

import shop
from shop.shelves import SHELVES


class ShopTest(unittest.TestCase):
    def test_nothing_is_given_away(self):
        for found in pkgutil.iter_modules(shop.__path__):
            module = importlib.import_module(f"shop.{found.name}")
            self.assertGreater(getattr(module, "PRICE", 1), 0, f"shop/{found.name}.py is given away")

    def test_every_shelf_is_there_once(self):
        self.assertEqual(sorted(SHELVES), sorted(set(SHELVES)))
""",
}

Ending = Literal["landed", "unchanged", "parked"]


@dataclass(frozen=True, slots=True)
class DemoTask:
    """`key` names it among these; `after` and `suggests` hold keys. `text` is what the agent carries out."""

    key: str
    title: str
    priority: int
    text: str
    after: tuple[str, ...] = ()
    suggests: str = ""
    ending: Ending = "landed"


def _file(path: str, content: str) -> str:
    return f"file: {path}\n\n{textwrap.indent(content, '    ')}"


def _shelf(name: str) -> str:
    return "meet: 2\n" + _file("shop/shelves.py", f'SHELVES = [\n    "tea",\n    "{name}",\n]\n')


CONFLICTING = ("coffee", "cocoa")
"""Both change the same line of the same commit: the second one to land conflicts, and its next attempt resolves it."""
SUGGESTED = "sale"
"""Last in the graph's order, but an agent names it as what should come next."""

TASKS = (
    DemoTask("coffee", "Put coffee on the shelves", 0, _shelf("coffee")),
    DemoTask("cocoa", "Put cocoa on the shelves", 0, _shelf("cocoa")),
    DemoTask("plan", "Plan a sale", 0, _file("SALE.md", "In spring, everything but the tea.\n"), suggests=SUGGESTED),
    DemoTask("prices", "Write the price list", 1, _file("shop/prices.py", 'PRICES = {"tea": 3, "mug": 8}\n')),
    DemoTask(
        "basket",
        "Fill a basket",
        1,
        _file(
            "shop/basket.py",
            "from shop.prices import PRICES\n\n\n"
            "def total(things):\n    return sum(PRICES[thing] for thing in things)\n",
        ),
        after=("prices",),
    ),
    DemoTask(
        "discount",
        "Give a discount",
        1,
        "commit: no\n"
        + _file(
            "shop/discount.py",
            "from shop.prices import PRICES\n\n\n"
            "def discount(amount):\n    return 1 if amount > max(PRICES.values()) else 0\n",
        ),
        after=("prices",),
    ),
    DemoTask(
        "checkout",
        "Check out",
        1,
        _file(
            "shop/checkout.py",
            "from shop.basket import total\nfrom shop.discount import discount\n\n\n"
            "def to_pay(things):\n    return total(things) - discount(total(things))\n",
        )
        + _file(
            "tests/test_checkout.py",
            "import unittest\n\nfrom shop.checkout import to_pay\n\n\n"
            "class CheckoutTest(unittest.TestCase):\n"
            "    def test_tea_and_a_mug(self):\n        self.assertEqual(to_pay(['tea', 'mug']), 10)\n",
        ),
        after=("basket", "discount"),
    ),
    DemoTask("water", "Give water away", 2, _file("shop/water.py", "PRICE = 0\n"), ending="parked"),
    DemoTask("biscuits", "Sell biscuits", 2, "commit: no\n" + _file("shop/biscuits.py", "PRICE = 2\n")),
    DemoTask("spoons", "Sell spoons", 2, _file("shop/spoons.py", "PRICE = 4\n")),
    DemoTask("readme", "See that there is a README", 3, "answer: no_change\n", ending="unchanged"),
    DemoTask(
        SUGGESTED,
        "Open the sale",
        4,
        _file("shop/sale.py", 'from shop.shelves import SHELVES\n\nON_SALE = [s for s in SHELVES if s != "tea"]\n'),
        after=("plan",),
    ),
)
