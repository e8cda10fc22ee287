"""Large numbers as people read them: 4.4B units, 645M, 19.2K hours."""

_SCALES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def human_number(value: float) -> str:
    """One decimal below 100 (two below 1), none above, in thousands, millions, billions.

    >>> [human_number(n) for n in (0.05, 7, 645_012_345, 4.4e9, 19_180.4, 999_960)]
    ['0.05', '7', '645M', '4.4B', '19.2K', '1M']
    """
    if value < 0:
        return "-" + human_number(-value)
    for scale, letter in _SCALES:
        # 999,960 reads as a million
        if value >= scale * 0.9995:
            return _short(value / scale) + letter
    return _short(value) if value >= 1 else f"{value:.2f}".rstrip("0").rstrip(".")


def _short(value: float) -> str:
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}".removesuffix(".0")
