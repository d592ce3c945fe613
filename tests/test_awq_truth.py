"""The truth for AWQ is there and is what it claims to be."""

import torch

from tests.awq_truth import load_awq_packing


def test_autoawq_reads_eight_four_bit_integers_from_one_word_in_its_own_order() -> None:
    packing = load_awq_packing()
    word = sum(value << (4 * place) for place, value in enumerate((0, 1, 2, 3, 4, 5, 6, 7)))
    packed = torch.tensor([[word]], dtype=torch.int32)
    weights, zeros = packing.unpack_awq(packed, packed, 4)
    ordered, _ = packing.reverse_awq_order(weights, zeros, 4)
    assert (ordered & 0xF).tolist() == [[0, 4, 1, 5, 2, 6, 3, 7]]
