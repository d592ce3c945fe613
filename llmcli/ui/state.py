"""What a chat session and its slash commands share.

Plain data; changed by `session.py` and `commands.py`.
"""

from dataclasses import dataclass

from llmcli.ui.conversation import Conversation
from llmcli.ui.notes import Notes
from llmcli.ui.parameters import Parameters
from llmcli.ui.waiting import Waiting


@dataclass(slots=True, kw_only=True)
class ChatState:
    """One chat.

    Attributes:
        conversation: what was said.
        parameters: how answers are sampled.
        notes: where everything but answers is printed.
        backend: call it for the model; it waits while that is loaded, and raises what went wrong with it.
        show_stats: whether each answer is followed by its numbers.
    """

    conversation: Conversation
    parameters: Parameters
    notes: Notes
    backend: Waiting
    show_stats: bool = True
