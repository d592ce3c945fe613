"""What a shell completes where a command takes a model.

Typer calls this while the user types, so that it is fast, opens no connection and never fails. Knows where models
lie and nothing of what they are.
"""


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
