"""What an image was generated from goes with it to whoever asks."""

from __future__ import annotations


def test_prompts_reach_the_reasoner_and_others_ignore_them(tmp_path, monkeypatch) -> None:
    import torch
    from reader_fixtures import make

    from rali_zoo.data.dataset import ImageDataset, collate
    from rali_zoo.data.tables import load_table
    from rali_zoo.models.regression import RegressionNetwork
    from rali_zoo.models.vlm import VLMNetwork
    from rali_zoo.views import View
    from rali_zoo.vlm.model import VLM
    from rali_zoo.vlm.questions import Tasks

    network = RegressionNetwork("rali:tiny").eval()
    view = View("whole", 32)

    def images(name: str) -> ImageDataset:
        table = load_table(f"{name}?root={make(name, tmp_path)}&protocol=whole")
        return ImageDataset(name, table.frame, view, network.preprocess)

    generated, plain = images("agiqa3k"), images("livec")
    batch = collate([generated[1], plain[0]])
    assert batch["prompt"] == ["a hunter, hyper detail", ""] and "prompt" not in collate([plain[0], plain[1]])
    told, other = Tasks("score-generated-short", None, 0.0).ask(batch, 0)
    assert told.asked.text() == 'Made from "a hunter, hyper detail". Rate the quality.'
    assert other.asked.text() == "Rate the quality."
    assert {q.asked.text() for q in Tasks("score-short", None, 0.0).ask(batch, 0)} == {"Rate the quality."}
    with torch.no_grad():
        with_prompt, without = network(batch["image"]), network.predict_batch(batch).score
    assert torch.equal(with_prompt, without)

    asked = []
    reasoner = VLMNetwork("rali:vlm-tiny", "score-generated-short", max_completion_length=2).eval()
    ask = VLM.ask

    def recording(self, image, questions, features=None):
        asked.extend(one.text() for one in questions)
        return ask(self, image, questions, features)

    monkeypatch.setattr(VLM, "ask", recording)
    for given in (batch, {"image": batch["image"]}):
        reasoner.predict_batch(given)
    assert asked == [told.asked.text(), other.asked.text(), *[other.asked.text()] * 2]
