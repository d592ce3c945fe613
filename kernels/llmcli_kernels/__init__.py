"""Kernels of a transformer's forward pass, one folder per operation, several implementations each.

Owns the operations and the choice between implementations. Knows torch, not the program
that uses it.
"""

from llmcli_kernels.int4_linear import Int4Weight
from llmcli_kernels.int4_linear.forms import Int4Columns
from llmcli_kernels.kernel_set import KernelSet, select
from llmcli_kernels.paged_attention import AttentionBatch
from llmcli_kernels.sampling import SamplingBatch

__all__ = ["AttentionBatch", "Int4Columns", "Int4Weight", "KernelSet", "SamplingBatch", "select"]
