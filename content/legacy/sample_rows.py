"""Good old rows: the reference set, which is always the same, and sets of any size."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from content.legacy.sample import Row, Sample, body_of_asset
from content.models import ContentType

NAMESPACE = UUID("6b9f3a52-6d2e-4c35-9a2b-5b1f0c7e4d18")
FIRST_DAY = datetime(2024, 1, 8, 9, 0, tzinfo=UTC)
FILES = "https://files.legacy.example"  # no resolver knows it: names under .example are never given away


@dataclass(frozen=True, slots=True)
class Totals:
    """What a set has.

    Attributes:
        body_bytes: of the bodies of items and assets together, in UTF-8.
    """

    tenants: int
    brands: int
    users: int
    content_items: int
    campaign_assets: int
    body_bytes: int


REFERENCE = Totals(tenants=4, brands=6, users=8, content_items=140, campaign_assets=35, body_bytes=6328)


@dataclass(frozen=True, slots=True)
class Studio:
    """A tenant of the reference set, and what its texts are about."""

    name: str
    tier: str
    brands: Sequence[str]
    people: Sequence[tuple[str, str]]
    products: Sequence[str]


STUDIOS = (
    Studio(
        "Aurora Ceramics",
        "professional",
        ("Aurora", "Aurora Kids"),
        (("Lena", "Höfer"), ("Marta", "Nowak")),
        ("mugs", "blue plates", "vases", "tea bowls", "tiles"),
    ),
    Studio(
        "Café Central",
        "starter",
        ("Café Central",),
        (("Zoë", "Lefèvre"), ("Idris", "Bakari")),
        ("cold brew", "croissants", "brunch", "crème brûlée"),
    ),
    Studio(
        "北極光 Outdoor",
        "free",
        ("Polar", "Polar Lab"),
        (("Aiko", "Tanaka"), ("Ólafur", "Þórsson")),
        ("tents", "寝袋", "boots"),
    ),
    Studio("Nimbus Software", "enterprise", ("Nimbus",), (("Priya", "Raman"), ("Jon", "O'Neil")), ("Nimbus 3", "sync")),
)
OWNERS = (0, 1, 0, 3, 2, 0, 1)  # whose each next row is
LINES = (
    "Spring is here, and so are {} 🌸",
    "<p>New: <strong>{}</strong>, in blue</p>",
    "Nur heute: {} für 19 € statt 25 €",
    "{} — made by hand, one by one",
    "Ça y est : {} pour l'été !",
    "Behind the scenes: {}, day one",
    "Two for one\n\n{}, all week long",
    "Who tried {}? Tell us 👀",
    "<h2>{}</h2><p>Back&nbsp;soon</p>",
    "{} 🎉🎉 thank you all",
    "新着: {} #new",
    "Sold out? {} will return on Monday.",
    "«{}» — скоро в продаже",
)
WITHOUT_TEXT = {11: "image", 70: "video", 119: "carousel"}  # valid too: a picture says it all
HASHTAGS = ("#spring", "#handmade", "#новинка", "#sale", "#behindthescenes")
TAGS = ("launch", "evergreen", "sale", "größe-m", "📣 teaser", "q2")
PLATFORMS = ("instagram", "facebook", "linkedin", "tiktok", "x")
STATUSES = ("draft", "published", "archived", "published")
LONG_READ = (
    "How we work. Every piece begins with a question that somebody asked us: a friend, a customer, a child at the window. "
    "We write it down, draw three answers, and throw two of them away. What is left is made once, used for a month, and "
    "only then made for others. That takes time, and it is why our list is short. It is also why things come back to us "
    "for repair rather than for refund. If you have a question of your own, send it: the best ones are printed here each "
    "spring, with what became of them, and the person who asked gets the first piece. We answer every letter, most of "
    "them within a week, some of them with a drawing, and a few with a parcel that nobody expected to get at all."
)


def id_of(*parts: str | int) -> str:
    """Return the id that always belongs to something."""
    return str(uuid5(NAMESPACE, "/".join(map(str, parts))))


def old_time(moment: datetime) -> str:
    """Return a time as the old platform has it: in UTC, without saying so."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def reference() -> Sample:
    """Return the reference set.

    Raises:
        ValueError: it does not have the totals that it has to have.
    """
    items = [_item(number) for number in range(REFERENCE.content_items - 1)]
    assets = [_asset(number) for number in range(REFERENCE.campaign_assets)]
    rest = REFERENCE.body_bytes - _body_bytes(items, assets)
    items.append({**_item(len(items)), "title": "How we work", "content_type": "article", "content_body": _text(rest)})
    rows = {**people_of_studios(), "content_items": items, "campaign_assets": assets}
    require_totals(rows, REFERENCE)
    return Sample(rows)


def require_totals(rows: Mapping[str, Sequence[Row]], wanted: Totals) -> None:
    """Count a set.

    Raises:
        ValueError: it has other totals.
    """
    counts = {table: len(rows[table]) for table in rows}
    found = Totals(**counts, body_bytes=_body_bytes(rows["content_items"], rows["campaign_assets"]))
    if found != wanted:
        raise ValueError(f"The set has {found} and should have {wanted}.")


def _body_bytes(items: Sequence[Row], assets: Sequence[Row]) -> int:
    bodies = [str(item["content_body"]) for item in items] + [body_of_asset(asset) for asset in assets]
    return sum(len(body.encode()) for body in bodies)


def _text(size: int) -> str:
    """Return a text of so many bytes that ends with a full stop."""
    if not 2 <= size <= len(LONG_READ):
        raise ValueError(f"There is no text of {size} bytes.")
    return LONG_READ[: size - 1].rstrip().ljust(size, ".")


def people_of_studios(studios: Sequence[Studio] = STUDIOS, *, mail: str = "legacy.example") -> dict[str, list[Row]]:
    """Return the tenants, brands and users of studios."""
    return {
        "tenants": [{"id": id_of(one.name), "name": one.name, "plan_tier": one.tier} for one in studios],
        "brands": [
            {"id": id_of(one.name, brand), "tenant_id": id_of(one.name), "name": brand}
            for one in studios
            for brand in one.brands
        ],
        "users": [
            {
                "id": id_of(one.name, first, last),
                "email": f"person-{number}-{place}@{mail}",
                "first_name": first,
                "last_name": last,
            }
            for number, one in enumerate(studios, 1)
            for place, (first, last) in enumerate(one.people, 1)
        ],
    }


def _whose(number: int) -> tuple[Studio, dict[str, str]]:
    """Return the studio of a row, and the columns that say so."""
    studio = STUDIOS[OWNERS[number % len(OWNERS)]]
    brand = studio.brands[number // len(OWNERS) % len(studio.brands)]
    first, last = studio.people[number // 3 % len(studio.people)]
    return studio, {
        "tenant_id": id_of(studio.name),
        "brand_id": id_of(studio.name, brand),
        "user_id": id_of(studio.name, first, last),
    }


def _times(number: int) -> dict[str, str]:
    """Return when a row was made and last changed; every third was never changed."""
    made = FIRST_DAY + timedelta(hours=37 * number, minutes=number % 60, microseconds=number % 4 * 250_000)
    return {"created_at": old_time(made), "updated_at": old_time(made + timedelta(hours=5, minutes=7) * (number % 3))}


def _item(number: int) -> Row:
    studio, whose = _whose(number)
    product = studio.products[number % len(studio.products)]
    kind = WITHOUT_TEXT.get(number, ContentType.values[number % len(ContentType.values)])
    return {
        "id": id_of("item", number),
        **whose,
        "title": f"{studio.name}: {product}, no. {number + 1}",
        "content_body": "" if number in WITHOUT_TEXT else LINES[number % len(LINES)].format(product),
        "content_type": kind,
        "status": STATUSES[number // 2 % len(STATUSES)],
        "content_metadata": None
        if number % 20 == 13
        else json.dumps(_metadata(number, kind), ensure_ascii=number % 2 == 0),
        **_times(number),
    }


def _metadata(number: int, kind: str) -> dict[str, Any]:
    """Return an item's metadata: what the platform knows by name, and what people added to it."""
    if number % 20 == 7:
        return {}
    found: dict[str, Any] = {
        "platforms": _some(PLATFORMS, number, number % 3),
        "tags": _some(TAGS, number, number % 4),
        "hashtags": _some(HASHTAGS, number, number % 3),
        "mentions": ["@aurora", "@café.central"][: number % 3],
        "media_urls": [f"{FILES}/items/{number + 1}.{'mp4' if kind in {'video', 'reel'} else 'jpg'}"]
        if kind in {"image", "video", "carousel", "reel"}
        else [],
    }
    if number % 5 == 2:
        found |= {
            "campaign": "Frühling 2024",
            "budget": 1250.5,
            "approved": True,
            "notes": {"by": None, "round": number % 3},
        }
    return found


def _some(values: Sequence[str], start: int, count: int) -> list[str]:
    return [values[(start + place) % len(values)] for place in range(count)]


def _asset(number: int) -> Row:
    studio, whose = _whose(number)
    product = studio.products[number % len(studio.products)]
    kind, ending = ("video", "mp4") if number % 4 == 3 else ("image", "jpg" if number % 2 else "png")
    address = f"{FILES}/assets/{studio.tier}/{product.replace(' ', '-')}-{number + 1}.{ending}"
    return {
        "id": id_of("asset", number),
        **whose,
        "campaign_space_id": id_of("space", number % 6) if number % 3 else None,
        "asset_name": f"{product} {kind} {number + 1}",
        "asset_type": kind,
        "headline_text": f"{product} ✨" if number % 5 else "",
        "ad_copy_text": "<b>New</b> in" if number % 4 == 0 else None,
        "description": "On a table" if number % 3 == 0 else None,
        "cta_text": ("Shop now", "Mehr →", None)[number % 3] if number % 5 else "Découvrir",
        "file_url": address,
        "public_url": f"{address}?v=2" if number % 2 else None,
        "mime_type": "video/mp4" if kind == "video" else f"image/{'jpeg' if ending == 'jpg' else ending}",
        "file_size_bytes": 48_000 + 1_733 * number if kind == "image" else 7_340_032 + number,
        "external_asset_id": f"ext-{number + 1:04}" if number % 2 else None,
        "tags": json.dumps(_some(TAGS, number, number % 4)) if number % 6 else None,
        **_times(4 * number + 2),
    }


# Any size

COMMON_WORDS = (
    "the of and to in is that for it with as on be at by this have from or one had not but what all were when we there can "
    "an your which their said if do will each about how up out them then she many some so these would other into has more "
    "her two like him see time could no make than first been its who now people my made over did down only way find use may "
    "water long little very after words called just where most know get through back much before go good new write our me "
    "man too any day same right look think also around another came come work three word must because does part even place "
    "well such here take why things help put years different away again off went old number great tell men say small every "
    "found still between name should home big give air line set own under read last never us left end along while might "
    "next sound below saw something thought both few those always looked show large often together asked house world going "
    "want school important until form food keep children feet land side without boy once animals life enough took sometimes "
    "four head above kind began almost live page got earth need far hand high year mother light parts country father let "
    "night following picture being study second eyes soon times story boys since white days ever paper hard near sentence "
    "better best across during today others however sure means knew try told young miles sun ways thing whole hear example "
    "heard several change answer room sea against top turned learn point city play toward five using himself usually money "
    "campaign brand launch season studio audience reel banner teaser budget channel summer product story offer customer"
)
WORDS = COMMON_WORDS.split()
BODY_BYTES = 2048
WORDS_A_BODY = 500  # enough for BODY_BYTES, as a word has five letters and more with its blank
SEED = 20240108
SIZED = tuple(
    Studio(
        f"Studio {number} of a sample for size", "enterprise", (f"Brand {number}",), (("Sam", f"Size {number}"),), ()
    )
    for number in range(1, 5)
)


def sized(count: int) -> Sample:
    """Return so many items with bodies of BODY_BYTES for four tenants; they are made one by one as they are read."""
    return Sample({**people_of_studios(SIZED, mail="size.legacy.example"), "content_items": _sized_items(count)})


def _sized_items(count: int) -> Iterator[Row]:
    chance = random.Random(SEED)  # noqa: S311 -- the same texts each time, no secret
    whose = [
        {
            "tenant_id": id_of(one.name),
            "brand_id": id_of(one.name, one.brands[0]),
            "user_id": id_of(one.name, *one.people[0]),
        }
        for one in SIZED
    ]
    for number in range(count):
        words = chance.choices(WORDS, k=WORDS_A_BODY)
        made = FIRST_DAY + timedelta(seconds=61 * number)
        yield {
            "id": id_of("sized", number),
            **whose[number % len(whose)],
            "title": f"{' '.join(words[:4]).capitalize()} {number + 1}",
            "content_body": " ".join(words)[:BODY_BYTES].ljust(BODY_BYTES, "."),
            "content_type": ContentType.values[number % len(ContentType.values)],
            "status": STATUSES[number % len(STATUSES)],
            "content_metadata": json.dumps(
                {
                    "platforms": [PLATFORMS[number % len(PLATFORMS)]],
                    "tags": [words[0], f"tag-{number % 50}"],
                    "hashtags": ["#size"],
                }
            ),
            "created_at": old_time(made),
            "updated_at": old_time(made + timedelta(minutes=number % 90)),
        }
