"""An algorithm as vantage6's users write it, on its published tools alone."""

from vantage6.algorithm.tools.decorators import algorithm_client, data
from vantage6.algorithm.tools.util import info


@algorithm_client
def mean(client, column):
    organizations = [organization["id"] for organization in client.organization.list()]
    task = client.task.create(
        input_={"method": "sums", "kwargs": {"column": column}},
        organizations=organizations,
        name="sums",
        description="sum and number of rows",
    )
    info("waiting for the sums")
    parts = client.wait_for_results(task_id=task.get("id"))
    return {"mean": sum(part["sum"] for part in parts) / sum(part["n"] for part in parts), "parts": len(parts)}


@data(1)
def sums(df, column):
    return {"sum": float(df[column].sum()), "n": int(df[column].count())}
