"""Deprecated: import mu.pipelines.dealing."""

from mu.deprecated import moved

__getattr__ = moved(
    __name__,
    {name: f"mu.pipelines.dealing:{name}" for name in ("first_come", "deal", "is_order")},
)
