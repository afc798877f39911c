"""Layer skipping by its definition: masks at full length, ESPnet's layers, one utterance at a time.

Slow, and simple enough to trust.
"""

import copy

import torch

from espnet_layerskip.method.ctc import head_blank_prob, head_softmax


def kept_by_definition(row, threshold, left, right, min_ratio):
    """Return which frames a gate lets go on, frame by frame, from their p(blank)."""
    spikes = [not p > threshold for p in torch.as_tensor(row).float().tolist()]
    if sum(spikes) < min_ratio * len(row):
        return [True] * len(row)
    return [any(spikes[max(0, t - right) : t + left + 1]) for t in range(len(row))]


def masked_reference(ours, settings, x, ctc, prompt=None):
    """Return the output (T', D) for one utterance, and which frames ran all layers (T',).

    Args:
        ours: The encoder; only its parameters and its subsampling are used.
        settings: A whole record, without repeats.
        x: Features (T, F).
        ctc: The head.
        prompt: Of the utterance, for OWSM-CTC's encoder.
    """
    call, num_prefix = ours, 0
    if prompt is not None:
        call = copy.copy(ours)
        call._prompt, num_prefix = prompt, prompt.prefix_embeds.size(1)
    h, pos_emb, _ = call.subsample(x[None], torch.tensor([len(x)]))
    length = h.size(1) - num_prefix
    active = torch.ones(h.shape[:2], dtype=torch.bool)
    raw = prompt is not None  # its heads take the state as it is
    thresholds = settings.thresholds(ours.gate_layer_idx)
    least = settings.min_skipped_frames or 0
    for layer_idx, layer in enumerate(ours.encoders, 1):
        new = reference_layer(layer, h, pos_emb, active, settings.skip_context, prompt)
        h = torch.where(active[..., None], new, h)
        said = h if raw else ours.normalised(h)
        if layer_idx in ours.gate_layer_idx and thresholds.get(layer_idx, 1.0) < 1.0:
            blank = head_blank_prob(ctc, said, layer_idx).detach()[0, num_prefix:]
            arrived = active[0, num_prefix:]
            there = torch.where(arrived, blank.float(), torch.inf)  # what is gone is no spike
            keep = kept_by_definition(
                there, thresholds[layer_idx], *settings.spike_extension, settings.min_spike_ratio
            )
            keep = torch.tensor(keep) & arrived
            if int((arrived & ~keep).sum()) < least or 4 * length < 5 * least:
                keep = arrived
            active = active.clone()
            active[0, num_prefix:] = keep
        if ours.interctc_use_conditioning and layer_idx in ours.interctc_layer_idx:
            more = h + ours.conditioning_layer(head_softmax(ctc, said, layer_idx))
            h = torch.where(active[..., None], more, h)
    if raw or type(ours).__name__ == "LayerSkipEBranchformerEncoder":
        out = torch.where(active[..., None], ours.after_norm(h), h)
    else:
        out = ours.after_norm(h) if ours.normalize_before else h
    return out[0, num_prefix:], active[0, num_prefix:]


def reference_layer(layer, h, pos_emb, active, context, prompt=None):
    """Return (1, T, D): ESPnet's layer; rows of inactive frames are ignored."""
    more = {}
    if prompt is not None:
        more = {"memory": prompt.memory, "memory_mask": prompt.memory_mask}

    def run(layer, x, pos_emb, mask):
        out = layer(x if pos_emb is None else (x, pos_emb), mask[:, None], **more)[0]
        return out[0] if isinstance(out, tuple) else out

    if context == "packed":  # the kept frames are an utterance of their own
        n, centre = int(active.sum()), 0 if pos_emb is None else pos_emb.size(1) // 2
        if n == 0:
            return torch.zeros_like(h)
        if pos_emb is not None:
            pos_emb = pos_emb[:, centre - n + 1 : centre + n]
        out = run(layer, h[active][None], pos_emb, torch.ones(1, n, dtype=torch.bool))
        return torch.zeros_like(h).masked_scatter(active[..., None], out)
    before = h
    if getattr(layer, "feed_forward_macaron", None) is not None:  # frozen frames do not run it
        x = layer.norm_ff_macaron(h)
        x = h + layer.ff_scale * layer.dropout(layer.feed_forward_macaron(x))
        h = torch.where(active[..., None], x, h)
        layer = copy.copy(layer)
        layer._modules = {**layer._modules, "feed_forward_macaron": None}
    if context == "full" and hasattr(layer, "conv_module"):
        return conformer_layer(layer, before, h, pos_emb, active[0])
    if context == "full":
        return run(layer, h, pos_emb, torch.ones_like(active))
    if not active.any():
        return torch.zeros_like(h)
    hooks = [
        module.register_forward_pre_hook(lambda _, args: (args[0] * active[:, None],))
        for module in layer.modules()
        if isinstance(module, torch.nn.Conv1d)
    ]
    out = run(layer, h, pos_emb, active)
    for hook in hooks:
        hook.remove()
    return out


def conformer_layer(layer, before, h, pos_emb, active):
    """Return (1, T, D): a Conformer layer behind its first feed-forward, in the context "full".

    Attention and convolution see the frozen states of skipped frames, not what attention would
    make of them.
    """
    before, h, attn, conv = before[0], h[0], layer.self_attn, layer.conv_module
    q, place = layer.norm_mha(h), torch.arange(len(h))
    columns = pos_emb.size(1) // 2 - (place[:, None] - place)
    heads = (len(h), attn.h, attn.d_k)
    query, key, value = (f(q).view(heads) for f in (attn.linear_q, attn.linear_k, attn.linear_v))
    far = attn.linear_pos(pos_emb[0])[columns].view(len(h), *heads)
    scores = torch.einsum("ihd,jhd->hij", query + attn.pos_bias_u, key)
    scores = scores + torch.einsum("ihd,ijhd->hij", query + attn.pos_bias_v, far)
    heard = torch.einsum("hij,jhd->ihd", (scores / attn.d_k**0.5).softmax(-1), value)
    h = h + attn.linear_out(heard.flatten(1))
    z = layer.norm_conv(torch.where(active[:, None], h, before))
    z = torch.nn.functional.glu(conv.pointwise_conv1(z.T[None]), dim=1)
    z = conv.activation(conv.norm(conv.depthwise_conv(z)))
    h = h + conv.pointwise_conv2(z)[0].T
    return layer.norm_final(h + 0.5 * layer.feed_forward(layer.norm_ff(h)))[None]
