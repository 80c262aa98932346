"""Between the messages of `cacheflow.v1` and the domain: the one place that knows both.

`read_x` makes a domain object of a message, `write_x` a message of a domain object. What a client asks is checked when
it is read, and a bad value raises `UsageError` or `InvalidConfig` that names the field; what a server tells is taken as
it is. A `tenant` stands wherever names of streams become ids, or ids names; clients know names only.
"""

from cacheflow_ray.service.messages.answers import (
    read_answer,
    read_evidence,
    read_found,
    read_question,
    read_search,
    write_answer,
    write_evidence,
    write_found,
    write_question,
    write_search,
)
from cacheflow_ray.service.messages.cluster import metrics_of, read_scale, read_status, write_status
from cacheflow_ray.service.messages.fields import parse
from cacheflow_ray.service.messages.index_files import (
    read_file_page,
    read_index_file,
    read_job_name,
    read_page_size,
    read_uri_token,
    write_file_page,
    write_index_file,
    write_job_name,
    write_uri_token,
)
from cacheflow_ray.service.messages.ingest import (
    Granted,
    Start,
    read_ack,
    read_frame,
    read_start,
    read_started,
    write_ack,
    write_frame,
    write_start,
    write_started,
)
from cacheflow_ray.service.messages.library import (
    read_new_index,
    read_operation,
    write_new_index,
    write_operation,
)
from cacheflow_ray.service.messages.streams import (
    Changes,
    Page,
    read_changes,
    read_new_stream,
    read_page,
    read_stream,
    write_changes,
    write_new_stream,
    write_page_token,
    write_stream,
)

__all__ = [
    "Changes",
    "Granted",
    "Page",
    "Start",
    "metrics_of",
    "parse",
    "read_ack",
    "read_answer",
    "read_changes",
    "read_evidence",
    "read_file_page",
    "read_found",
    "read_frame",
    "read_index_file",
    "read_job_name",
    "read_new_index",
    "read_new_stream",
    "read_operation",
    "read_page",
    "read_page_size",
    "read_question",
    "read_scale",
    "read_search",
    "read_start",
    "read_started",
    "read_status",
    "read_stream",
    "read_uri_token",
    "write_ack",
    "write_answer",
    "write_changes",
    "write_evidence",
    "write_file_page",
    "write_found",
    "write_frame",
    "write_index_file",
    "write_job_name",
    "write_new_index",
    "write_new_stream",
    "write_operation",
    "write_page_token",
    "write_question",
    "write_search",
    "write_start",
    "write_started",
    "write_status",
    "write_stream",
    "write_uri_token",
]
