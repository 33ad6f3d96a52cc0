"""What a method may need of a host, and a host give: the places where a method acts. No torch."""

from __future__ import annotations

SAMPLER_STATE = "sampler state"
"""The sampler's own latent may be changed before each step."""
NATIVE_PASS = "native pass"
"""The network may be called at the native size inside a step, with the same words."""
ATTENTION = "attention"
"""Self-attention layers ask the pass."""
CROSS_ATTENTION = "cross-attention"
"""Cross-attention layers show the pass their queries and keys."""
CONVOLUTION = "convolution"
"""Convolutions ask the pass, which may run them at another dilation or stride, or with other weights."""
FEATURE_SIZE = "feature size"
"""Feature maps may be made smaller and larger between blocks."""
VIEWS = "views"
"""The network may be called on parts of the latent, each for itself."""
VIEW_PROMPTS = "prompts per view"
"""Each of those calls may have words of its own."""
STAGES = "stages"
"""Several passes one after the other, each with its own size."""
PIXELS = "pixels"
"""The picture alone, without the network."""

CAPABILITIES = frozenset(
    (
        *(SAMPLER_STATE, NATIVE_PASS, ATTENTION, CROSS_ATTENTION, CONVOLUTION, FEATURE_SIZE, VIEWS, VIEW_PROMPTS),
        *(STAGES, PIXELS),
    )
)
STANDALONE: frozenset[str] = CAPABILITIES
"""What the standalone host gives: planning reads it here, without torch; the host itself names this very set."""
