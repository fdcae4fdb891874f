"""What training leaves out at random."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Dropouts:
    """Probabilities in training: of a rank's activation at a token, of a whole rank, of the whole delta."""

    hidden: float = 0.0
    rank: float = 0.0
    module: float = 0.0
