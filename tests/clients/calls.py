"""What somebody does with the generated Python client: create, list, generate. Arguments: address, key.

The client is there only while its test runs, so no type checker sees it.
"""
# mypy: ignore-errors

import sys

from en_garde_content_storage_client import AuthenticatedClient
from en_garde_content_storage_client.api.content import create_content, generate_content, list_content
from en_garde_content_storage_client.models import (
    ContentInputRequest,
    ContentPage,
    ContentTypeEnum,
    GenerateInputRequest,
    GenerateOutput,
    ItemOutput,
    ListContentContentType,
    ProblemOutput,
    ProviderEnum,
)

address, key = sys.argv[1:]
client = AuthenticatedClient(base_url=address, token=key, raise_on_unexpected_status=True)

wanted = ContentInputRequest(title="From a client", type_=ContentTypeEnum.POST, body="Text", tags=["a"])
made = create_content.sync(client=client, body=wanted)
assert isinstance(made, ItemOutput), made
assert (made.title, made.version, made.type_, made.body) == ("From a client", 1, ContentTypeEnum.POST, "Text")

page = list_content.sync(client=client, content_type=ListContentContentType.POST, tags=["a"], page_size=5)
assert isinstance(page, ContentPage), page
assert [item.id for item in page.data] == [made.id]
assert page.pagination.total == 1

asked = GenerateInputRequest(
    content_type=ContentTypeEnum.POST, prompt="About cats", provider=ProviderEnum.LOCAL, save=True
)
written = generate_content.sync(client=client, body=asked)
assert isinstance(written, GenerateOutput), written
assert written.variants[0].body
assert len(written.content_ids) == 1

refused = create_content.sync(client=client, body=ContentInputRequest(title="", type_=ContentTypeEnum.POST))
assert isinstance(refused, ProblemOutput), refused
assert (refused.status, refused.code) == (400, "validation_error")
