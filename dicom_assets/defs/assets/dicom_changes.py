"""dicom_changes: every window of each DICOM service's changes, landed as one file. What the file holds is a batch."""

from datetime import timedelta
from typing import Any

import dagster as dg

from dicom_assets.defs.asset_keys import asset_key
from dicom_assets.defs.reporting import code_of, fail_clearly
from dicom_assets.defs.resources import RunContextParam
from dicom_assets.defs.windows import partitions, window_of
from dicom_assets.service.client import ServiceClient
from dicom_assets.service.errors import ServiceError
from dicom_assets.service.sync import Synced, sync_window
from dicom_assets.service.window_files import LandingUnwritable
from dicom_assets.settings import Settings

# The client has tried for minutes already; one more try outlasts a restart of the service, and a window that still
# fails is asked for again by the next tick.
ONCE_MORE = dg.RetryPolicy(max_retries=1, delay=60)


def dicom_changes_asset(settings: Settings) -> dg.AssetsDefinition:
    """The asset for these settings: its windows follow from them."""
    changes = settings.changes

    @dg.asset(
        key=asset_key(settings, "dicom_changes"),
        partitions_def=partitions(changes),
        group_name="landing",
        kinds={"dicom", "python"},
        metadata=code_of(sync_window),
        retry_policy=ONCE_MORE,
        description="Changes of each DICOM service in a window of time, as they came, in its landing zone.",
    )
    @fail_clearly
    def dicom_changes(context: dg.AssetExecutionContext, work: RunContextParam) -> dg.MaterializeResult[Any]:
        """One window of every service. A service that fails keeps no other one from being landed."""
        window = window_of(context.partition_key, changes.window_minutes)
        delay = timedelta(minutes=changes.delay_minutes)
        landed: list[Synced] = []
        failures: list[str] = []
        for service in work.settings.followed:
            try:
                with ServiceClient(service) as client:
                    landed.append(sync_window(client, window, delay))
            except (ServiceError, LandingUnwritable) as error:
                failures.append(str(error))
        if failures:
            raise dg.Failure(" ".join(failures), metadata={"window": str(window), "services_landed": len(landed)})
        return dg.MaterializeResult(
            metadata={
                "window": str(window),
                "dagster/partition_row_count": sum(one.entries for one in landed),
                "pages": sum(one.pages for one in landed),
                "bytes": sum(one.bytes for one in landed),
                "files_written": sum(one.files for one in landed),
                "services": len(landed),
            }
        )

    return dicom_changes
