"""`llmcli prune`: free what nothing in the hub's cache refers to any more."""

from llmcli.cli.rm import DryRun, Yes, carry_out


def prune(*, yes: Yes = False, dry_run: DryRun = False) -> None:
    """Delete old revisions and unfinished downloads.

    A revision stays as long as a branch or tag points to it: after a pull of the newer one, the older goes. So does one
    that was fetched by its commit alone. What another process is fetching now is left alone.

    Examples:
        llmcli prune --dry-run
    """
    from llmcli.hub.deletion import plan_pruning
    from llmcli.hub.settings import hub_settings

    carry_out(plan_pruning(hub_settings(offline=True)), yes=yes, dry_run=dry_run)
