"""What the dashboards are made of: panels, queries and variables in one look."""

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

type Queries = Mapping[str, str]
"""Expressions by their legend."""

# The refresh of the dashboards and the scrapes in the examples; nothing is faster than either.
REFRESH = "5s"
HALF, THIRD, SIXTH = 12, 8, 4
TALL, SHORT = 8, 4

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
# Left alone: green. Faulted: orange. Not enrolled: grey. The colour-blind tell them apart.
COLORS = {"control": "#1b9e77", "experiment": "#d95f02", "bystander": "#8e8e8e"}
VERDICTS = {"held": "green", "refuted": "red", "inconclusive": "blue", "invalid": "purple"}


def query(expr: str, legend: str = "__auto") -> prometheus.Dataquery:
    """A query over the time that is shown."""
    return prometheus.Dataquery().expr(expr).legend_format(legend).range()


def now(expr: str, legend: str = "__auto") -> prometheus.Dataquery:
    """A query for the last value only."""
    return prometheus.Dataquery().expr(expr).legend_format(legend).instant()


def curves(title: str, queries: Queries, unit: str, says: str = "") -> timeseries.Panel:
    """Lines over time."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .span(HALF)
        .height(TALL)
        .line_width(2)
        .fill_opacity(4)
        .show_points(options.VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI))
        .legend(
            common.VizLegendOptions()
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
    )
    for legend, expr in queries.items():
        panel = panel.with_target(query(expr, legend))
    return panel


def by_cohort(title: str, queries: Queries, unit: str, says: str = "") -> timeseries.Panel:
    """Lines over time in their cohort's colour, whose name ends the legend."""
    panel = curves(title, queries, unit, says).min(0)
    for cohort, color in COLORS.items():
        panel = panel.override_by_regexp(f".*{cohort}$", [fixed(color)])
    return panel


def heat(title: str, expr: str, scheme: str) -> heatmap.Panel:
    """Counts of a histogram's buckets over time."""
    target = query(expr, "{{le}}").format(PromQueryFormat.HEATMAP)
    return (
        heatmap.Panel()
        .title(title)
        .datasource(SOURCE)
        .span(HALF)
        .height(TALL)
        .calculate(calculate=False)
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .color(heatmap.HeatmapColorOptions().scheme(scheme).steps(64))
        .with_target(target)
    )


def figure(title: str, expr: str, unit: str = "short", says: str = "") -> stat.Panel:
    """One number, with the way it took."""
    return (
        stat.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .span(SIXTH)
        .height(SHORT)
        .color_mode(options.BigValueColorMode.VALUE)
        .graph_mode(options.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(query(expr))
    )


def word(title: str, expr: str, legend: str, nothing: str, says: str = "") -> stat.Panel:
    """The label of the series that is there now, such as a state."""
    return (
        figure(title, expr, says=says)
        .targets([now(expr, legend)])
        .no_value(nothing)
        .graph_mode(options.BigValueGraphMode.NONE)
        .text_mode(options.BigValueTextMode.NAME)
    )


def rows(title: str, expr: str, hidden: Sequence[str] = (), says: str = "") -> table.Panel:
    """A table with a line for each series that is there now, and its labels as columns."""
    away = dict.fromkeys(("Time", "Value", *hidden), True)
    organize = models.DataTransformerConfig(id_val="organize", options={"excludeByName": away})
    return (
        table.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .span(HALF)
        .height(TALL)
        .with_transformation(organize)
        .with_target(now(expr).format(PromQueryFormat.TABLE))
    )


def colored(panel: stat.Panel, colors: Mapping[str, str]) -> stat.Panel:
    """A fixed colour for each name."""
    for name, color in colors.items():
        panel = panel.override_by_name(name, [fixed(color)])
    return panel


def fixed(color: str) -> models.DynamicConfigValue:
    return models.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": color})


def dashed() -> models.DynamicConfigValue:
    return models.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 8]})


def steps(*limits: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    """Colours from a value upwards; the first has none."""
    found = [models.Threshold(value=value, color=color) for value, color in limits]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(found)


def choice(name: str, values: str, *, many: bool = False) -> dashboard.QueryVariable:
    """A variable over the values of a label: `label_values(SERIES, LABEL)`."""
    variable = (
        dashboard.QueryVariable(name)
        .datasource(SOURCE)
        .query(values)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(many)
        .include_all(many)
    )
    if not many:
        return variable
    everything = models.VariableOption(text="All", value="$__all", selected=True)
    return variable.all_value(".*").current(everything)


def page(title: str, uid: str, says: str) -> dashboard.Dashboard:
    """An empty dashboard that knows its data source and its sister."""
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(says)
        .tags(["counterfault"])
        .readonly()
        .refresh(REFRESH)
        .time("now-30m", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("counterfault")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["counterfault"])
            .include_vars(include_vars=True)
            .keep_time(keep_time=True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
    )
