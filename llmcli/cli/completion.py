"""What a shell completes besides commands and options: the names of models, and the keys of the configuration.

Typer calls these functions while the user types, so that they are fast, open no connection and never fail. Knows
where models lie and nothing of what they are.
"""

import typer
from typer.core import TyperGroup

MAX_HELP = 60


def complete_model(incomplete: str) -> list[str]:
    """The models of the hub's cache and the bundled one; a shell adds folders when none fits."""
    from llmcli.errors import LLMCliError
    from llmcli.hub.models import BUNDLED_NAME
    from llmcli.hub.settings import hub_settings

    try:
        folders = [path.name for path in hub_settings(offline=True).cache_dir.glob("models--*--*")]
    except (OSError, LLMCliError):
        folders = []
    names = sorted(folder.removeprefix("models--").replace("--", "/", 1) for folder in folders)
    return [name for name in (*names, BUNDLED_NAME) if name.startswith(incomplete)]


def complete_key(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """The keys that `llmcli config set` takes, with what they mean."""
    from llmcli.cli.keys import read_vocabulary

    root = ctx.find_root().command
    if not isinstance(root, TyperGroup):
        return []
    keys = {key: option for known in read_vocabulary(root, ctx).values() for key, option in known.items()}
    return [
        (key, (option.help or "")[:MAX_HELP])
        for key, option in sorted(keys.items())
        if key.startswith(incomplete)
    ]
