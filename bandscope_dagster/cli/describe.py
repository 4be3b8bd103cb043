"""``bandscope describe``: writes the data card of the store, or its description as Croissant."""

import json
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bandscope_dagster.cli.new_file import new_file, require_new
from bandscope_dagster.describing.croissant import CROISSANT_KEY, croissant
from bandscope_dagster.describing.data_card import CARD_KEY, data_card
from bandscope_dagster.describing.holdings import read_holdings
from bandscope_dagster.describing.own_file import replace_own
from bandscope_dagster.describing.stated import Stated
from bandscope_dagster.settings import Settings
from bandscope_dagster.storage.objects.protocol import ObjectStore
from bandscope_dagster.tagging.registry import present_from


def describe(
    settings: Settings,
    store: ObjectStore,
    console: Console,
    stated: Stated,
    to: Path | None,
    *,
    as_croissant: bool,
    force: bool,
) -> None:
    """Write the description to the file ``to``, or into the store, and print where it is.

    A file of ours in the store is replaced; one that a person wrote or edited never is. The file ``to`` is replaced
    only with ``force``.

    Raises:
        CannotWrite: the file ``to`` exists, and ``force`` is not given; or its folder does not exist.
        NotOurs: a person wrote or edited the file in the store.
        NothingToDescribe: the store has no catalog of songs.
    """
    if to is not None:
        require_new(to, force=force)
    holdings = read_holdings(store)
    now = datetime.now(UTC)
    if as_croissant:
        text = json.dumps(croissant(store, holdings, stated, now), indent=2) + "\n"
    else:
        text = data_card(holdings, stated, present_from(settings.present_from, settings.audible_db), now)
    if to is None:
        written = replace_own(store, CROISSANT_KEY if as_croissant else CARD_KEY, text)
    else:
        with new_file(to, force=force) as file:
            file.write(text.encode())
        written = str(to)
    console.print(escape(written), highlight=False, soft_wrap=True)
    if stated.missing:
        console.print(
            f"Not stated, because Bandscope cannot know it: {', '.join(stated.missing)}.",
            highlight=False,
            soft_wrap=True,
        )
