"""Two figures of one machine: the maker's and an independent one. Where both are known, both can be served. Pure.

`simulate --paced-by vendor` serves every profile at its maker's figure; `slug@vendor` and `slug@measured` are models of
their own, in a queue of their own, so that both can stand side by side.
"""

from collections.abc import Mapping
from dataclasses import replace

from webapp.simulator.profile import Figure, Profile

BY = ("vendor", "measured")


def paced_by(profile: Profile, figure: Figure) -> Profile:
    """Return the profile with its time per layer set so that one user alone sees `figure`, and with its source."""
    layers, speculation = profile.serving.model.layers, profile.serving.speculation
    surplus_us = (1e6 / figure.tok_s - 1e6 / profile.tok_s) / layers
    surplus_us *= speculation.mean_tokens() if speculation else 1.0
    return replace(
        profile,
        serving=replace(profile.serving, layer_us=max(0.0, profile.serving.layer_us + surplus_us)),
        pace=figure.by,
        source=figure.source,
        date=figure.date,
        calibrated_on=f"this figure of one user alone, {figure.tok_s:g} tok/s",
        error=f"set to this figure ({figure.by}); prefill speed and load as without it",
        status="A",
    )


def figure_of(profile: Profile, by: str) -> Figure | None:
    """Return the profile's first figure by "vendor" or "measured"; None where there is none."""
    return next((figure for figure in profile.figures if figure.by == by), None)


def all_by(profiles: Mapping[str, Profile], by: str) -> dict[str, Profile]:
    """Return the profiles, those that have such a figure paced by it; with an empty `by` all as they are."""
    return {
        slug: paced_by(profile, figure) if (figure := figure_of(profile, by)) else profile
        for slug, profile in profiles.items()
    }


def with_both(profiles: Mapping[str, Profile]) -> dict[str, Profile]:
    """Return the profiles and, of each with figures of both kinds that differ, `slug@vendor` and `slug@measured`."""
    found = dict(profiles)
    for profile in profiles.values():
        figures = [figure for by in BY if (figure := figure_of(profile, by))]
        if len(figures) == len(BY) and figures[0].tok_s != figures[1].tok_s:
            for figure in figures:
                name = f"{profile.slug}@{figure.by}"
                found[name] = replace(paced_by(profile, figure), slug=name, label=f"{profile.label} ({figure.by})")
    return found
