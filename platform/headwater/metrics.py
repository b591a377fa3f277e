"""Names of metrics and log fields, in one place: dashboards and log searches are written against them.

Units are in the names (``_seconds``, ``_bytes``, ``_total``), as Prometheus has it. Nothing is measured here;
``service.http`` fills them from the catalog and the live rows when it is asked.
"""

from __future__ import annotations

# -- log fields, each present on a line that is about one --
COMPONENT = "component"
COMMIT = "commit"
INPUT_COMMIT = "input_commit"
STEP = "step"
LSN = "lsn"
SOURCE = "source"
TOPIC = "topic"
VIEW = "view"
PARTITION = "partition"
ROWS = "rows"
BYTES = "bytes"
DURATION_MS = "duration_ms"
ERROR = "error"
EXIT_CODE = "exit_code"
PID = "pid"
ATTEMPT = "attempt"

LOG_FIELDS = (
    COMMIT,
    INPUT_COMMIT,
    STEP,
    LSN,
    SOURCE,
    TOPIC,
    VIEW,
    PARTITION,
    ROWS,
    BYTES,
    DURATION_MS,
    ERROR,
    EXIT_CODE,
    PID,
    ATTEMPT,
)

# -- metrics: name -> help --
POSITION = "headwater_position"
INPUT_POSITION = "headwater_pipeline_input_position"
SOURCE_UP = "headwater_source_up"
SOURCE_LAG_BYTES = "headwater_source_lag_bytes"
SOURCE_LAG_SECONDS = "headwater_source_lag_seconds"
SOURCE_ROWS = "headwater_source_rows_total"
SOURCE_COMMITS = "headwater_source_commits_total"
SOURCE_ROWS_PER_SECOND = "headwater_source_rows_per_second"
SOURCE_WAL_BYTES = "headwater_source_wal_retained_bytes"
SOURCE_WAL_SAFE_BYTES = "headwater_source_wal_safe_bytes"
SOURCE_SLOT_WARNING = "headwater_source_slot_warning"
SOURCE_SPILL_BYTES = "headwater_source_spill_bytes_total"
SOURCE_STREAM_BYTES = "headwater_source_stream_bytes_total"
VIEW_UP = "headwater_view_up"
VIEW_LAG_COMMITS = "headwater_view_lag_commits"
VIEW_LATE_ROWS = "headwater_view_late_rows"
VIEW_LAG_SECONDS = "headwater_view_lag_seconds"
STEP_SECONDS_LAST = "headwater_step_seconds_last"
STEP_SECONDS_P95 = "headwater_step_seconds_p95"
JOB_UP = "headwater_job_up"
JOB_LAG_ROWS = "headwater_job_lag_rows"
JOB_LAG_SECONDS = "headwater_job_lag_seconds"
JOB_STATE_ROWS = "headwater_job_state_rows"
JOB_STEP_SECONDS_P95 = "headwater_job_step_seconds_p95"
COMPONENT_UP = "headwater_component_up"
COMPONENT_RESTARTS = "headwater_component_restarts_total"
COMPONENT_ERRORS = "headwater_component_errors_total"
BEAT_AGE_SECONDS = "headwater_component_beat_age_seconds"
TOPICS = "headwater_topics"
GROUP_LAG_SECONDS = "headwater_consumergroup_lag_seconds"
GROUP_STATUS = "headwater_consumergroup_status"

# As kafka_exporter calls them, so that dashboards and alerts made for it work unchanged.
KAFKA_PARTITIONS = "kafka_topic_partitions"
KAFKA_PARTITION_OFFSET = "kafka_topic_partition_current_offset"
KAFKA_PARTITION_OLDEST = "kafka_topic_partition_oldest_offset"
KAFKA_GROUP_OFFSET = "kafka_consumergroup_current_offset"
KAFKA_GROUP_OFFSET_SUM = "kafka_consumergroup_current_offset_sum"
KAFKA_GROUP_LAG = "kafka_consumergroup_lag"
KAFKA_GROUP_LAG_SUM = "kafka_consumergroup_lag_sum"
KAFKA_GROUP_MEMBERS = "kafka_consumergroup_members"

HELP = {
    POSITION: "Newest commit of the lake.",
    INPUT_POSITION: "Newest commit that the pipeline has consumed.",
    SOURCE_UP: "1 while the source is copying or streaming.",
    SOURCE_LAG_BYTES: "WAL bytes the server has written and the log does not hold.",
    SOURCE_LAG_SECONDS: "Age of the oldest change the log does not hold.",
    SOURCE_ROWS: "Row changes captured since the source's process started.",
    SOURCE_COMMITS: "Commits made since the source's process started.",
    SOURCE_ROWS_PER_SECOND: "Row changes captured per second, lately.",
    SOURCE_WAL_BYTES: "WAL bytes the server keeps for the source's slot.",
    SOURCE_WAL_SAFE_BYTES: "WAL bytes the server may still write before the slot can be lost.",
    SOURCE_SLOT_WARNING: "1 while the slot needs to be looked at: see slot_warning in the status.",
    SOURCE_SPILL_BYTES: "Bytes of transactions that the server spilled to disk to decode them.",
    SOURCE_STREAM_BYTES: "Bytes of transactions that the server sent before they ended.",
    VIEW_UP: "1 while the view is live.",
    VIEW_LAG_COMMITS: "Input commits that the view has not seen.",
    VIEW_LATE_ROWS: "Rows that came behind the view's watermark.",
    VIEW_LAG_SECONDS: "Age of the oldest commit the view has not seen.",
    STEP_SECONDS_LAST: "Duration of the newest step.",
    STEP_SECONDS_P95: "95th percentile of recent steps' durations.",
    JOB_UP: "1 while the job runs.",
    JOB_LAG_ROWS: "Records of its inputs that the job has not taken in.",
    JOB_LAG_SECONDS: "Age of the oldest commit with records that the job has not taken in.",
    JOB_STATE_ROWS: "Rows of the job's keyed state.",
    JOB_STEP_SECONDS_P95: "95th percentile of the job's recent steps' durations.",
    COMPONENT_UP: "1 while the component runs.",
    COMPONENT_RESTARTS: "Restarts of the component since `up` started.",
    COMPONENT_ERRORS: "Error lines of the component since `up` started.",
    BEAT_AGE_SECONDS: "Seconds since the component's last heartbeat.",
    TOPICS: "Topics of the lake.",
    GROUP_LAG_SECONDS: "Age of the oldest record that the group has not finished.",
    GROUP_STATUS: "What the group's commits say: 0 OK, 1 WARN, 2 STALL, 3 STOP, 4 REWIND.",
    KAFKA_PARTITIONS: "Open partitions of the topic.",
    KAFKA_PARTITION_OFFSET: "Offset of the partition's next record.",
    KAFKA_PARTITION_OLDEST: "First offset of the partition that is kept.",
    KAFKA_GROUP_OFFSET: "First offset of the partition that the group has not finished.",
    KAFKA_GROUP_OFFSET_SUM: "The same, summed over the topic's partitions.",
    KAFKA_GROUP_LAG: "Records of the partition that the group has not finished.",
    KAFKA_GROUP_LAG_SUM: "The same, summed over the topic's partitions.",
    KAFKA_GROUP_MEMBERS: "Members of the group whose lease runs.",
}
