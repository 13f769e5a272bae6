"""The emulator refuses a job id twice, reads Parquet by name, and fails on request."""

import io
import uuid
from typing import Any

import grpc
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import requests
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import Conflict, Forbidden
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, types
from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

from engarde.embedded import daemon, session
from engarde.embedded.paths import DataDir

SCHEMA = [bigquery.SchemaField("name", "STRING"), bigquery.SchemaField("size", "INT64")]


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    place = tmp_path_factory.mktemp("bigquery") / "data"
    with session.join(place, ["bigquery"]) as given:
        yield given
    daemon.stop(DataDir.at(place))


@pytest.fixture
def client(variables):
    options = ClientOptions(api_endpoint=variables["BIGQUERY_EMULATOR_HOST"])
    project = variables["BIGQUERY_PROJECT_ID"]
    with bigquery.Client(project=project, credentials=AnonymousCredentials(), client_options=options) as made:
        yield made


@pytest.fixture
def table(client):
    dataset = client.create_dataset(f"d{uuid.uuid4().hex}")
    return client.create_table(bigquery.Table(dataset.table("items"), schema=SCHEMA))


def rows(client, table):
    return sorted(
        tuple(row.values()) for row in client.query(f"select name, size from {table.dataset_id}.items").result()
    )


def test_it_loads_json_under_the_client_s_job_id_once(client, table):
    job_id, config = uuid.uuid4().hex, bigquery.LoadJobConfig(schema=SCHEMA)
    load = lambda: client.load_table_from_json([{"name": "a", "size": 1}], table, job_id=job_id, job_config=config)  # noqa: E731
    load().result()
    with pytest.raises(Conflict):
        load().result()
    assert client.get_job(job_id).state == "DONE"
    assert rows(client, table) == [("a", 1)]


def test_it_refuses_a_query_s_job_id_twice(client, table):
    job_id = uuid.uuid4().hex
    client.query("select 1", job_id=job_id, job_retry=None).result()
    with pytest.raises(Conflict):
        client.query("select 1", job_id=job_id, job_retry=None, retry=None)


def test_it_reads_parquet_columns_by_name(client, table):
    file = io.BytesIO()
    parquet.write_table(pa.table({"size": [7], "name": ["b"]}), file)
    file.seek(0)
    config = bigquery.LoadJobConfig(source_format="PARQUET")
    client.load_table_from_file(file, table, job_config=config).result()
    assert rows(client, table) == [("b", 7)]


def test_it_streams_rows_in_messages_of_a_thousand(client, variables, table):
    rows = [{"name": "a", "size": number} for number in range(2500)]
    client.load_table_from_json(rows, table, job_config=bigquery.LoadJobConfig(schema=SCHEMA)).result()
    channel = grpc.insecure_channel(variables["BIGQUERY_EMULATOR_GRPC_HOST"])
    reader: Any = BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))
    with channel:
        wanted = types.ReadSession(table=table.path.lstrip("/"), data_format=types.DataFormat.ARROW)
        opened = reader.create_read_session(parent=f"projects/{table.project}", read_session=wanted, max_stream_count=1)
        [stream] = opened.streams
        counts = [message.row_count for message in reader.read_rows(stream.name)]
        assert max(counts) == 1000
        assert sum(counts) == 2500
        assert sorted(row["size"].as_py() for row in reader.read_rows(stream.name).rows(opened)) == list(range(2500))


def test_it_fails_on_request_and_then_recovers(client, variables):
    fault = {"code": 403, "reason": "quotaExceeded", "left": 1}
    requests.post(f"{variables['BIGQUERY_EMULATOR_HOST']}/__fault", json=fault, timeout=5).raise_for_status()
    with pytest.raises(Forbidden) as refused:
        list(client.list_datasets())
    assert refused.value.errors[0]["reason"] == "quotaExceeded"
    list(client.list_datasets())


def test_it_refuses_an_unknown_fault(variables):
    answer = requests.post(f"{variables['BIGQUERY_EMULATOR_HOST']}/__fault", json={"cod": 403}, timeout=5)
    assert answer.status_code == 400
