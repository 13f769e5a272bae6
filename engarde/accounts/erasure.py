"""What accounts have of a tenant, removed for good: its people, keys, brands and at last itself.

A person who is a member of this tenant only is the tenant's to erase, an invited one too; who is also a member elsewhere,
or of the platform's staff, stays without the membership.
"""

from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from django.apps import apps
from django.db.models import Exists, OuterRef, QuerySet

from engarde.accounts.models import ApiKey, Brand, Mail, Membership, Tenant, User
from engarde.common.erasing import drop, erase_rows, erasing_scope, forget_names, silence
from engarde.common.models import IdempotencyKey
from engarde.common.scopes import system_scope

PEOPLE_A_BATCH = 100


def people_to_erase(*, tenant_id: UUID) -> list[UUID]:
    """Return the ids of those who belong to this tenant alone."""
    with system_scope("find the people of a tenant"):
        return list(_own_people(tenant_id).order_by("id").values_list("id", flat=True))


def _own_people(tenant_id: UUID) -> QuerySet[User]:
    memberships = Membership.objects.filter(user_id=OuterRef("id"))
    mine, others = memberships.filter(tenant_id=tenant_id), memberships.exclude(tenant_id=tenant_id)
    return User.objects.filter(Exists(mine), ~Exists(others), is_staff=False, is_superuser=False)


def still_there(*, user_ids: Collection[UUID]) -> set[UUID]:
    """Return those of these people who have an account."""
    return set(User.objects.filter(id__in=user_ids).values_list("id", flat=True))


def close_door(*, tenant_id: UUID, now: datetime) -> dict[str, int]:
    """Let nobody in any more, and return how many keys were revoked, people locked out and memberships removed.

    Who stays loses the membership, and mail that tells of the tenant, here. Who goes keeps it, as it tells that they go.
    """
    with system_scope("close a tenant's door"):
        silence()
        keys = ApiKey.objects.filter(tenant_id=tenant_id, revoked_at=None).update(revoked_at=now)
        locked_out = User.objects.filter(Exists(_own_people(tenant_id).filter(id=OuterRef("id"))), is_active=True)
        people = locked_out.update(is_active=False)
        leaving = Membership.objects.filter(tenant_id=tenant_id)
        leaving = leaving.exclude(user_id__in=_own_people(tenant_id).values("id"))
        mail = _drop_mail(tenant_id, list(leaving.values_list("user_id", flat=True)))
        memberships = leaving.delete()[0]
    return {"api_keys": keys, "people": people, "memberships": memberships, "mail": mail}


def _drop_mail(tenant_id: UUID, user_ids: Collection[UUID]) -> int:
    name = Tenant.objects.filter(id=tenant_id).values_list("name", flat=True).first()
    return Mail.objects.filter(user_id__in=user_ids, tenant_name=name).delete()[0] if name else 0


def erase_tenant(*, tenant_id: UUID, limit: int) -> dict[str, int]:
    """Remove at most `limit` rows in one transaction; return how many by table, nothing once there are none.

    All that refers to the tenant in higher rooms has to be gone.
    """
    return (
        _erase_people(tenant_id, min(limit, PEOPLE_A_BATCH))
        or erase_rows((IdempotencyKey, Membership, ApiKey, Brand), tenant_id=tenant_id, limit=limit)
        or _erase_itself(tenant_id)
    )


def _erase_people(tenant_id: UUID, limit: int) -> dict[str, int]:
    """Remove people with their sessions, mail and whatever else is theirs in any room."""
    with system_scope("erase the people of a tenant"):
        silence()
        own = _own_people(tenant_id)
        locked = list(own.select_for_update(of=("self",)).order_by("id").values_list("id", flat=True)[:limit])
        # Looked at again under the locks: nobody can make them a member anywhere any more.
        ids = list(own.filter(id__in=locked).values_list("id", flat=True))
        forget_names(User, ids)
        _, by_model = User.objects.filter(id__in=ids).delete()
    return {_table_of(label): count for label, count in by_model.items() if count}


def _table_of(label: str) -> str:
    return str(apps.get_model(label)._meta.db_table)


def _erase_itself(tenant_id: UUID) -> dict[str, int]:
    with erasing_scope(tenant_id):
        count = drop(Tenant, tenant_id=tenant_id, limit=1, column="id")
    return {Tenant._meta.db_table: count} if count else {}
