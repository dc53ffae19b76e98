"""The settings of small cases, and the published scores of their batches."""

from formats import aa_clip_small
from formats.anomaly_metrics import published_percent
from formats.comparison import Comparison
from formats.golden import Golden

TOLERANCES = ()

_SCORES = "metrics_eval_on_case_batch"


def recognises(golden: Golden) -> bool:
    """Tell by the content: every entry has settings and scores."""
    return (
        bool(golden.content)
        and not golden.tensors
        and all(isinstance(case, dict) and {"config", _SCORES} <= case.keys() for case in golden.content.values())
    )


def check(golden: Golden, compare: Comparison) -> None:
    """Find each case's file by its settings, build it, and score the maps that it holds."""
    files = [sibling for sibling in golden.siblings() if aa_clip_small.recognises(sibling)]
    for name, case in golden.content.items():
        found = next((file for file in files if file.content["config"] == case["config"]), None)
        if found is None:
            compare.fail(name, "no file beside this one has these settings")
            continue
        model = aa_clip_small.build_models(found)["token"]
        aa_clip_small.check_settings(f"{name}.config", found, model, compare)
        tensors = found.tensors
        for domain in case[_SCORES]:
            # The stored maps: the other file's lines tell whether ours are the same.
            maps, scores = tensors[f"out.s2.anomaly_map.{domain}"], tensors["out.s2.det_score"]
            percent = published_percent(maps, tensors["in.mask"], scores, tensors["in.label"], domain)
            compare.expect(*(f"{name}.{_SCORES}.{domain}.{score}" for score in percent))
            for score, value in percent.items():
                compare(f"{name}.{_SCORES}.{domain}.{score}", value)
