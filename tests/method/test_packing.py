import torch
from hypothesis import given
from hypothesis import strategies as st

from espnet_layerskip.method.packing import gather_frames, pack_index, scatter_frames

masks = st.tuples(st.integers(1, 4), st.integers(1, 20), st.integers(0, 2**31)).map(
    lambda a: torch.rand(a[0], a[1], generator=torch.Generator().manual_seed(a[2])) > 0.5
)


@given(masks)
def test_gather_takes_the_kept_frames_in_order(keep):
    x = torch.randn(*keep.shape, 3)
    index = pack_index(keep)
    packed = gather_frames(x, index)
    assert packed.size(1) == max(1, int(keep.sum(1).max()))
    for b in range(len(keep)):
        n = int(keep[b].sum())
        assert torch.equal(packed[b, :n], x[b][keep[b]])
        assert index.slot_mask[b].tolist() == [True] * n + [False] * (packed.size(1) - n)
        assert index.positions[b, :n].tolist() == keep[b].nonzero().flatten().tolist()


@given(masks)
def test_scatter_undoes_gather_and_leaves_the_others(keep):
    base, other = torch.randn(*keep.shape, 3), torch.randn(*keep.shape, 3)
    index = pack_index(keep)
    out = scatter_frames(base, gather_frames(other, index), index)
    assert torch.equal(out, torch.where(keep[..., None], other, base))


@given(masks)
def test_gradients_reach_each_frame_once(keep):
    base = torch.randn(*keep.shape, 2, requires_grad=True)
    x = torch.randn(*keep.shape, 2, requires_grad=True)
    index = pack_index(keep)
    weight = torch.randn(*keep.shape, 2)
    (scatter_frames(base, 3 * gather_frames(x, index), index) * weight).sum().backward()
    assert torch.equal(x.grad, torch.where(keep[..., None], 3 * weight, 0.0))
    assert torch.equal(base.grad, torch.where(keep[..., None], 0.0, weight))


def test_an_utterance_without_kept_frames_has_one_slot_to_attend():
    index = pack_index(torch.tensor([[False, False, False], [True, True, False]]))
    assert index.is_padded
    assert index.slot_mask.tolist() == [[False, False], [True, True]]
    assert index.attention_mask().tolist() == [[True, False], [True, True]]


def test_scatter_takes_frames_of_another_dtype():
    index = pack_index(torch.tensor([[True, False]]))
    out = scatter_frames(torch.zeros(1, 2, 1), torch.ones(1, 1, 1, dtype=torch.bfloat16), index)
    assert out.dtype == torch.float32
    assert out.flatten().tolist() == [1.0, 0.0]
