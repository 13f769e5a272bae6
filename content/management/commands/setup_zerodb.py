"""`manage.py setup_zerodb`: the collections."""

from typing import Any

from django.core.management.base import CommandError

from content import documents
from content.stores.base import StoreRejected, StoreUnavailable
from engarde.common.commands import JSONCommand


class Command(JSONCommand):
    """Creates the collections that are missing."""

    help = "Create ZeroDB's collections; running it again changes nothing."

    def run(self, **_: Any) -> dict[str, Any]:
        """Create and return their names.

        Raises:
            CommandError: there is no key, or ZeroDB does not answer or refuses.
        """
        store = documents.document_store()
        if store is None:
            raise CommandError("ZERODB_API_KEY is not set: documents stay in PostgreSQL's spool.")
        try:
            return {"created": store.set_up()}
        except (StoreUnavailable, StoreRejected) as error:
            raise CommandError(str(error)) from error
