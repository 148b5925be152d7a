"""The built-in sample: invented users and films, for runs without any data.

Nothing in it comes from a third party. Films stand in clusters, each with a latent direction; a
user holds a few interests, and each of them wanders from cluster to cluster, mostly to the next
one, so that recent items tell more than old ones; films differ in popularity by Zipf's law.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from data.interactions import Interactions
from data.itemfile import Item, year_in
from data.source import Source
from data.sourcefile import checksum
from data.userfile import Users

USERS, ITEMS, CLUSTERS, FACTORS = 2_000, 1_000, 40, 16
SEASONS, PER_SEASON, INTERESTS = 12, (3, 8), 3
STAY, ONWARD = 0.8, 0.16  # an interest stays, moves to the next cluster, or (else) leaps anywhere
TASTE, SKEW = 8.0, 0.8  # what likeness and popularity weigh in a choice

GENRES = (
    "Adventure",
    "Animal",
    "Comedy",
    "Courtroom",
    "Crime",
    "Desert",
    "Family",
    "Fantasy",
    "Heist",
    "Horror",
    "Island",
    "Music",
    "Mystery",
    "Romance",
    "Sea",
    "Space",
    "Sport",
    "Spy",
    "War",
    "Winter",
)
MOODS = (
    "Amber",
    "Broken",
    "Crimson",
    "Distant",
    "Electric",
    "Forgotten",
    "Gentle",
    "Hollow",
    "Idle",
    "Jagged",
    "Kindled",
    "Lonely",
    "Midnight",
    "Northern",
    "Open",
    "Paper",
    "Quiet",
    "Restless",
    "Silver",
    "Tender",
    "Upside",
    "Velvet",
    "Wandering",
    "Yellow",
    "Zealous",
)
THINGS = (
    "Anchor",
    "Bridge",
    "Compass",
    "Doorway",
    "Engine",
    "Feather",
    "Garden",
    "Harbour",
    "Inkwell",
    "Jackal",
    "Kettle",
    "Lantern",
    "Mirror",
    "Needle",
    "Orchard",
    "Parade",
    "Quarry",
    "River",
    "Saddle",
    "Tunnel",
    "Umbrella",
    "Violin",
    "Window",
    "Xylophone",
    "Yard",
    "Zeppelin",
    "Acorn",
    "Bell",
    "Candle",
    "Drum",
    "Ember",
    "Fountain",
    "Glove",
    "Hammer",
    "Iceberg",
    "Jewel",
    "Kite",
    "Ladder",
    "Mountain",
    "Nest",
)


@functools.cache
def read_sample() -> Interactions:
    """The interactions, the same on every call."""
    rng = np.random.default_rng(20230723)
    cluster = np.arange(ITEMS) % CLUSTERS  # (I,)
    centre = rng.standard_normal((CLUSTERS, FACTORS))
    centre /= np.linalg.norm(centre, axis=1, keepdims=True)
    factors = centre[cluster] + 0.1 * rng.standard_normal((ITEMS, FACTORS))  # (I, F)
    likes = np.exp(TASTE * centre @ factors.T)  # (C, I) what an interest thinks of a film
    popularity = -SKEW * np.log(1 + rng.permutation(ITEMS))  # (I,) the log of Zipf's law

    interests = rng.integers(0, CLUSTERS, (USERS, INTERESTS))  # (U, T)
    weight = rng.dirichlet(np.full(INTERESTS, 2.0), USERS)  # (U, T)
    taken = np.zeros((USERS, ITEMS), dtype=bool)
    users, items = [], []
    for _ in range(SEASONS):
        liking = sum(weight[:, [t]] * likes[interests[:, t]] for t in range(INTERESTS))  # (U, I)
        # the highest keys are a draw without replacement in proportion to liking * popularity
        key = np.log(liking) + popularity + rng.gumbel(size=(USERS, ITEMS))
        key[taken] = -np.inf
        best = np.argpartition(-key, PER_SEASON[1], axis=1)[:, : PER_SEASON[1]]  # (U, most per season)
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(key, best, 1), axis=1), 1)
        count = rng.integers(*PER_SEASON, (USERS, 1), endpoint=True)
        user, place = np.nonzero(np.arange(PER_SEASON[1]) < count)
        users.append(user)
        items.append(best[user, place])
        taken[user, best[user, place]] = True
        move = rng.random((USERS, INTERESTS))
        leap = rng.integers(0, CLUSTERS, (USERS, INTERESTS))
        moved = np.where(move < STAY + ONWARD, (interests + 1) % CLUSTERS, leap)
        interests = np.where(move < STAY, interests, moved)
    user = np.concatenate(users)
    order = np.argsort(user, kind="stable")  # seasons stay in order within a user
    return Interactions(
        user[order].astype(np.int32),
        np.concatenate(items)[order].astype(np.int32),
        [str(i) for i in range(1, USERS + 1)],
        [str(i) for i in range(1, ITEMS + 1)],
    )


def sample_items() -> dict[str, Item]:
    """A title, one or two genres and a year per film; those of a cluster share noun and first genre."""
    items = {}
    for i in range(ITEMS):
        cluster = i % CLUSTERS
        genres = [GENRES[cluster % len(GENRES)]]
        second = GENRES[i * 7 % len(GENRES)]
        if i % 3 == 0 and second not in genres:
            genres.append(second)
        title = f"The {MOODS[i // CLUSTERS]} {THINGS[cluster]} ({1950 + i * 37 % 70})"
        items[str(i + 1)] = Item(title, "|".join(genres), year_in(title))
    return items


SOURCE = Source(
    "built-in sample",
    read_sample,
    sample_items,
    Users,
    # that of this file: whoever changes the generator has the sample prepared anew
    lambda: {"sha256": checksum([Path(__file__)]), "users_sha256": ""},
)
