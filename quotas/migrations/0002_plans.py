"""The five plans of the price list."""

from decimal import Decimal
from typing import ClassVar

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

GB = 1024**3

# tier, storage limit in bytes, retention in days, USD a month, generated items a month; None: unlimited or by agreement
PLANS = (
    ("free", 1 * GB, 30, Decimal(0), 100),
    ("starter", 10 * GB, 90, Decimal(29), 1_000),
    ("professional", 100 * GB, 365, Decimal(99), 10_000),
    ("business", 500 * GB, 5 * 365, Decimal(299), 50_000),
    ("enterprise", None, None, None, None),
)


def add_plans(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Insert the plans."""
    plan = apps.get_model("quotas", "Plan")
    for rank, (tier, limit, days, price, generated) in enumerate(PLANS, start=1):
        plan.objects.create(
            tier=tier,
            rank=rank,
            storage_limit_bytes=limit,
            retention_days=days,
            price_usd_month=price,
            monthly_generation_limit=generated,
        )


class Migration(migrations.Migration):
    """Adds the plans."""

    dependencies: ClassVar = [("quotas", "0001_initial")]
    operations: ClassVar = [migrations.RunPython(add_plans, migrations.RunPython.noop)]
