"""The metric as a Space, loaded back by the real `evaluate` through the loopback Hub."""

import evaluate
import yaml

from pess_hf.metrics.space import publish_metric


def test_the_metric_is_published_as_a_space_and_loads(hub, tmp_path):
    token = hub.tokens["write"]
    url = publish_metric(tmp_path / "space", "tester/persona_match", token=token)
    assert url == f"{hub.url}/spaces/tester/persona_match"
    publish_metric(tmp_path / "space", "tester/persona_match", token=token)
    repo = hub.repo("tester/persona_match", "space")
    assert len(repo.history()) == 2 and repo.sdk == "gradio"
    files = repo.at().files
    assert set(files) == {".gitattributes", "README.md", "app.py", "persona_match.py", "requirements.txt"}
    page = files["README.md"].data.decode()
    head = yaml.safe_load(page.split("---\n")[1])
    assert head["sdk"] == "gradio" and {"evaluate", "metric"} <= set(head["tags"])
    assert 'evaluate.load("tester/persona_match")' in page
    assert "pess_hf==" in files["requirements.txt"].data.decode()
    hub.log.clear()
    metric = evaluate.load("tester/persona_match")
    scores = metric.compute(predictions=[["I own two dogs."]], references=[["I have two dogs.", "I play chess."]])
    assert (scores["precision"], scores["recall"]) == (1.0, 0.5)  # both have dogs, chess is missed
    assert hub.calls("resolve")
