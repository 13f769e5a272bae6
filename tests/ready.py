"""Makes Django ready in processes of which others are forked."""

import django

django.setup()
