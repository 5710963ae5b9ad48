"""RALI: an image encoder aligned to descriptions, and prototypes that carry scores.

"Reasoning as representation" (ICLR 2026, arXiv 2510.11369), section 4. Three stages in one ``fit``:

1. ``align``: symmetric InfoNCE between images and the text embeddings of their descriptions;
2. ``prototypes``: PCA of the embeddings, K-means inside score buckets;
3. ``finetune``: prototypes, scores and temperature against MOS.

The text encoder is a teacher: it is not part of the module and is never needed to score.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rali_zoo.errors import ConfigError
from rali_zoo.models.base import loading_weights
from rali_zoo.models.files import read_checkpoint
from rali_zoo.models.rali import Projector, RALINetwork
from rali_zoo.trainers.base import BackboneModule, broadcast, check_settings, split_chains, warmup_cosine
from rali_zoo.trainers.losses import RegressionLoss, alike_scores, info_nce
from rali_zoo.trainers.prototypes import fit_projection, fit_prototypes
from rali_zoo.trainers.teacher import Teacher
from rali_zoo.types import Batch

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRScheduler

Stage = Literal["align", "prototypes", "finetune"]
_REMEMBERED = 20_000  # images an epoch that may lend a prototype their descriptions


class RALI(BackboneModule):
    """Aligns an image encoder to descriptions, then makes prototypes that carry scores.

    Args:
        backbone: image encoder by URI.
        text_encoder: text encoder by URI; used in the stage ``align`` and, for prototypes made of
            texts, in ``prototypes``. Its width is the width of the embedding.
        stages: which stages this run goes through, in order; what is left out comes from ``init_from``.
        init_from: path of a checkpoint whose weights are the start, for stages run one by one.
        projector: from features to the embedding: ``none`` when the backbone already lives in the
            text encoder's space (CLIP with its own text encoder), else ``linear`` or ``mlp``.
        hidden: width of the perceptron's hidden layer.
        dropout: share in [0, 1) dropped in the projector while training.
        align_epochs: epochs of stage 1; the rest of ``trainer.max_epochs`` is stage 3.
        align_lr: learning rate of the projector in stage 1.
        align_temperature: of InfoNCE at the start; learned.
        align_sigma: standard deviation, points of MOS, over which images of one data set stand for each other in
            stage 1 (soft targets by score distance); 0 = only those with equal descriptions (the paper's).
        finetune_lr: learning rate of prototypes, scores and temperature in stage 3.
        finetune_projector_lr: learning rate of the projector in stage 3; the paper's is 0.
        encoder_lr: learning rate of the backbone in stage 1; 0 freezes it and lets features be cached.
        finetune_encoder_lr: learning rate of the backbone in stage 3; the paper's is 0.
        weight_decay: of AdamW, on backbone and projector.
        buckets: equal-width score buckets (paper: 240), at most as many as prototypes.
        prototypes: K, clamped to what the data allow (paper: 250).
        pca_dim: components kept (paper: 512), clamped likewise; ``null`` leaves PCA out.
        standardise: divide embeddings by their standard deviation before projecting, as the
            released inference code does.
        prototype_source: what is clustered: embeddings of images, of texts, or the mean of both.
        temperature: tau of the score softmax at the start; learned.
        loss: pointwise loss of stage 3 (paper: mse).
        plcc_weight: weight of the PLCC loss inside each data set of a batch.
        fidelity_weight: weight of the Thurstone fidelity ranking loss inside each data set of a batch.
        rank_weight: weight of the loss of images whose order is known (``data.ranks``) in the last stage.
        descriptions_kept: descriptions remembered for each prototype, for explanations.
        text_lr: learning rate of the text encoder in stage 1; 0 keeps it frozen, and every text is
            embedded only once.
        embedding_dim: width of the shared space; asked of the text encoder when it is not given.

    Raises:
        ConfigError: stages that cannot run with these settings; the message names the setting.
    """

    network: RALINetwork

    def __init__(
        self,
        backbone: str = "rali:tiny",
        text_encoder: str = "st:all-MiniLM-L6-v2",
        stages: list[Stage] | None = None,
        init_from: str | None = None,
        projector: Projector = "linear",
        hidden: int = 512,
        dropout: float = 0.0,
        align_epochs: int = 10,
        align_lr: float = 1e-3,
        align_temperature: float = 0.07,
        align_sigma: float = 0.0,
        finetune_lr: float = 1e-3,
        finetune_projector_lr: float = 0.0,
        encoder_lr: float = 1e-3,
        finetune_encoder_lr: float = 0.0,
        weight_decay: float = 0.05,
        buckets: int = 240,
        prototypes: int = 250,
        pca_dim: int | None = 512,
        standardise: bool = False,
        prototype_source: Literal["image", "text", "both"] = "image",
        temperature: float = 0.07,
        loss: RegressionLoss = "mse",
        plcc_weight: float = 0.0,
        fidelity_weight: float = 0.0,
        rank_weight: float = 0.1,
        descriptions_kept: int = 3,
        text_lr: float = 0.0,
        embedding_dim: int | None = None,
    ) -> None:
        check_settings(locals())
        teacher = Teacher(text_encoder)
        # Asked of nobody where a file states it, so that a saved scorer is built without the text encoder.
        width = embedding_dim or (None if projector == "none" and loading_weights() else teacher.dim)
        network = RALINetwork(backbone, width, projector, hidden, dropout, prototypes, pca_dim, temperature)
        super().__init__(
            network,
            finetune_lr,
            max(encoder_lr, finetune_encoder_lr),
            weight_decay,
            loss,
            plcc_weight,
            fidelity_weight,
            rank_weight,
        )
        self.save_hyperparameters()
        self.hparams["embedding_dim"] = network.projector.dim
        self.stages: tuple[Stage, ...] = tuple(stages or ("align", "prototypes", "finetune"))
        self.teacher = teacher
        #: the text encoder, only while it is trained
        self.text_encoder = teacher.release() if text_lr > 0 else None
        self.align_log_scale = nn.Parameter(-torch.tensor(align_temperature).log())
        self._seen: list[tuple[Tensor, list[tuple[str, str]]]] = []
        if init_from is not None and not loading_weights():
            self._start_from(init_from)

    # ---- training -----------------------------------------------------------------------------

    @property
    def stage(self) -> Stage:
        """The stage of the running epoch."""
        aligning = "align" in self.stages and self.trainer.current_epoch < self.hparams["align_epochs"]
        return "align" if aligning else "finetune"

    @property
    def wants_prototypes(self) -> bool:
        """Whether this run makes prototypes and has not made them yet."""
        return "prototypes" in self.stages and not bool(self.network.ready)

    @property
    def smoke(self) -> bool:
        """Whether this is a ``fast_dev_run``: one epoch, a few batches, everything touched once."""
        return bool(getattr(self.trainer, "fast_dev_run", False))

    def on_fit_start(self) -> None:
        """Check that the stages can run, and embed every text of the training set once."""
        epochs, align = self.trainer.max_epochs or 0, self.hparams["align_epochs"]
        if "align" in self.stages and self.datamodule.texts is None:
            raise ConfigError("RALI aligns images with texts: give data.descriptions, e.g. [labels]")
        if "finetune" in self.stages and "align" in self.stages and epochs <= align and not self.smoke:
            raise ConfigError(
                f"trainer.max_epochs={epochs} ends before model.align_epochs={align} do; raise it"
            )
        if self.stages == ("finetune",) and not bool(self.network.ready):
            raise ConfigError("stages [finetune] starts from prototypes: give model.init_from=CKPT")
        if "align" in self.stages or self.hparams["prototype_source"] != "image":
            self.teacher.learn(self.datamodule.texts or {}, self.device, self.text_encoder)

    def on_train_epoch_start(self) -> None:
        """Forget the last epoch's images; make the prototypes now if this run does not align first."""
        super().on_train_epoch_start()
        self._seen.clear()
        at_once = "align" not in self.stages or self.smoke
        if at_once and self.wants_prototypes:
            self.make_prototypes()
        for part, rate in (
            (self.backbone, "finetune_encoder_lr"),
            (self.network.projector, "finetune_projector_lr"),
        ):
            if self._is_still(rate):
                part.eval()  # what prototypes were made with: no dropout, and statistics that stay

    def _is_still(self, rate: str) -> bool:
        """Whether the part with this learning rate stays as it is in the running stage."""
        return self.stage == "finetune" and self.hparams[rate] == 0

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Make the prototypes after the last step of the alignment, so that its validation has scores."""
        last_batch = batch_idx + 1 == self.trainer.num_training_batches
        last_epoch = self.trainer.current_epoch + 1 == self.hparams["align_epochs"]
        if self.stage == "align" and last_batch and last_epoch and self.wants_prototypes:
            self.make_prototypes()
        if self.stage == "finetune" and last_batch and self._seen:
            query, keys = zip(*self._seen, strict=True)
            self._describe_prototypes(torch.cat(query), [key for some in keys for key in some])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Scalar loss of the running stage; of both in a ``fast_dev_run``, which has one epoch."""
        batch, ranked = split_chains(batch)
        with torch.set_grad_enabled(not self._is_still("finetune_encoder_lr")):
            views = self.network.features(batch)
        features = views.flatten(0, 1)
        both = self.smoke and "align" in self.stages
        total = features.new_zeros(())
        if self.stage == "align":
            total = total + self._align_loss(batch, features)
        if self.stage == "finetune" or both:
            if "finetune" not in self.stages:
                return None
            total = total + self._finetune_loss(Batch(**{**batch, "features": views}))
            total = total + self.rank_loss(ranked)
            self._remember(batch, features)
        # DDP wants a gradient, if only of zero, for the parameters of the other stage.
        return total + 0.0 * sum(p.sum() for p in self.parameters() if p.requires_grad)

    def _align_loss(self, batch: Batch, features: Tensor) -> Tensor:
        views = len(features) // len(batch["mos"])
        text, ids = self.teacher.look_up(batch["text"], features.device)
        if self.text_encoder is not None:
            text = self.text_encoder(batch["text"])
        image = self.network.embed(features).view(len(text), views, -1).mean(1)
        sigma = self.hparams["align_sigma"]
        alike = alike_scores(batch["mos"], batch["dataset"], sigma) if sigma else None
        scale = self.align_log_scale.clamp(max=4.6).exp()  # CLIP's bound of 100
        value = info_nce(image, text, ids, scale, alike)
        self.log_step("train/align_loss", value, len(text))
        return value

    def unbounded_score(self, batch: Batch) -> Tensor:
        """(B,) scores not clamped to the scale: outside of it one would have no gradient to come back by."""
        with torch.set_grad_enabled(not self._is_still("finetune_encoder_lr")):
            features = self.network.features(batch)
        b, v = features.shape[:2]
        return self.network.unbounded(features.flatten(0, 1)).score.view(b, v).mean(1)

    def _finetune_loss(self, batch: Batch) -> Tensor:
        score = self.unbounded_score(batch)
        value = self.score_loss(score, batch)
        self.log_step("train/score_loss", value, len(score))
        return value

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave the weights of the other stage out, so that Adam does not count steps that they never made."""
        if self.smoke:
            return
        net = self.network
        for part in (
            (net.vectors, net.scores, net.log_temperature)
            if self.stage == "align"
            else (self.align_log_scale,)
        ):
            part.grad = None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over three groups whose learning rates change with the stage; warm-up and cosine in each."""
        h, net = self.hparams, self.network
        peaks = {  # learning rates in (align, finetune)
            "head": (h["align_lr"], h["finetune_lr"]),
            "projector": (h["align_lr"], h["finetune_projector_lr"]),
            "encoder": (h["encoder_lr"], h["finetune_encoder_lr"]),
            "text": (h["text_lr"], 0.0),
        }
        members = {
            "head": [net.vectors, net.scores, net.log_temperature, self.align_log_scale],
            "projector": list(net.projector.parameters()),
            "encoder": [p for p in self.backbone.parameters() if p.requires_grad],
            "text": [] if self.text_encoder is None else list(self.text_encoder.parameters()),
        }
        if self.datamodule.streams:
            raise ConfigError("RALI's prototypes need all training images at hand: give folders or tables")
        total = self.total_steps
        share = h["align_epochs"] / max(1, self.trainer.max_epochs or 1) if "align" in self.stages else 0.0
        edge = total if self.smoke else round(total * share)

        def schedule(pair: tuple[float, float]) -> Any:
            def factor(step: int) -> float:
                if step < edge:
                    return pair[0] * warmup_cosine(step, edge)
                return pair[1] * warmup_cosine(step - edge, total - edge)

            return factor

        names = [name for name, params in members.items() if params]
        decay = {"head": 0.0}
        groups = [{"params": members[n], "weight_decay": decay.get(n, h["weight_decay"])} for n in names]
        optimizer = torch.optim.AdamW(groups, lr=1.0)  # times the rate of the stage
        lambdas = torch.optim.lr_scheduler.LambdaLR(optimizer, [schedule(peaks[n]) for n in names])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": lambdas, "interval": "step"}}

    # ---- prototypes ---------------------------------------------------------------------------

    @torch.no_grad()
    def make_prototypes(self) -> None:
        """Stage 2: PCA and bucketed K-means over the training images, cut as for evaluation.

        Every process embeds all images; that all hold the same prototypes afterwards, the first one's count.
        """
        h = self.hparams
        broadcast(self.network.buffers())  # the statistics of batches, which each process has its own of
        embedding, mos, keys = self._training_embeddings()
        source = embedding
        if h["prototype_source"] != "image":
            if self.text_encoder is not None:  # it has moved since the texts were embedded
                self.teacher.learn(self.datamodule.texts or {}, self.device, self.text_encoder)
            source = self.teacher.mean_of(self.datamodule.texts or {}, keys)
            if h["prototype_source"] == "both":
                source = (F.normalize(embedding, dim=-1) + F.normalize(source, dim=-1)) / 2
        seed = int(torch.initial_seed() % 2**31)
        source, mos = source[torch.isfinite(mos)], mos[torch.isfinite(mos)]
        projection = fit_projection(source.double().numpy(), h["pca_dim"], h["standardise"], seed)
        buckets = min(h["buckets"], h["prototypes"])  # each needs a prototype
        found = fit_prototypes(
            projection(source.double().numpy()), mos.numpy(), buckets, h["prototypes"], seed
        )
        net, (k, d) = self.network, found.vectors.shape
        for buffer in (net.components, net.vectors, net.scores, net.active):
            buffer.zero_()
        net.components[:d] = torch.from_numpy(projection.components)
        net.projection_mean.copy_(torch.from_numpy(projection.mean))
        net.projection_scale.copy_(torch.from_numpy(projection.scale))
        net.vectors[:k, :d] = torch.from_numpy(found.vectors)
        net.scores[:k] = torch.from_numpy(found.scores)
        net.active[:k] = True
        net.ready.fill_(True)
        broadcast((net.vectors, net.scores, *net.buffers()))
        self._describe_prototypes(net.query(embedding.to(self.device)), keys)

    def _training_embeddings(self) -> tuple[Tensor, Tensor, list[tuple[str, str]]]:
        """Embeddings (N, T), MOS (N,) and (dataset, id) of the training images, on the CPU."""
        was_training = self.training
        self.eval()
        parts, mos, keys = [], [], []
        loader = self.datamodule.train_eval_dataloader()
        few = self.trainer.num_training_batches if self.smoke else None
        precision = self.trainer.precision_plugin  # as in a step of training: this loader is not Lightning's
        for batch in islice(loader, int(few) if few else None):
            mos.append(batch["mos"])
            batch = self.transfer_batch_to_device(precision.convert_input(batch), self.device, 0)
            with precision.forward_context():
                features = self.network.features(batch)
                b, v = features.shape[:2]
                embedded = self.network.embed(features.flatten(0, 1))
            parts.append(embedded.view(b, v, -1).mean(1).float().cpu())
            keys += list(zip(batch["dataset"], batch["id"], strict=True))
        self.train(was_training)
        return torch.cat(parts), torch.cat(mos), keys

    def _remember(self, batch: Batch, features: Tensor) -> None:
        """Keep where the images of this epoch lie, for the descriptions of prototypes that move."""
        if self.datamodule.texts is None or len(self._seen) * len(batch["id"]) > _REMEMBERED:
            return
        projector = self.network.projector
        mode = projector.training
        projector.eval()  # without dropout, as when scoring
        with torch.no_grad():
            embedded = self.network.embed(features.detach()).view(len(batch["id"]), -1, projector.dim).mean(1)
            query = self.network.query(embedded)
        projector.train(mode)
        self._seen.append((query, list(zip(batch["dataset"], batch["id"], strict=True))))

    def _describe_prototypes(self, query: Tensor, keys: list[tuple[str, str]]) -> None:
        """Keep the descriptions of the training images (N, d) that lie nearest to each prototype."""
        texts = self.datamodule.texts
        if texts is None:
            return
        vectors = self.network.vectors[self.network.active].float()
        nearest = (F.normalize(vectors, dim=-1) @ query.T).argsort(dim=1, descending=True)
        keep = self.hparams["descriptions_kept"]
        self.network.prototype_texts = []
        for row in nearest[:, : 10 * keep].tolist():
            distinct = dict.fromkeys(texts[keys[i]][0] for i in row)  # neighbours often share a text
            self.network.prototype_texts.append(list(distinct)[:keep])

    # ---- checkpoints --------------------------------------------------------------------------

    def renamed(self, state: Mapping[str, object]) -> dict[str, object]:
        """As the base class's; the text encoder was a tower in 0.1.0."""
        names = {
            k: k.replace("text_tower.", "text_encoder.", 1) for k in state if k.startswith("text_tower.")
        }
        return super().renamed({names.get(k, k): v for k, v in state.items()})

    def _start_from(self, path: str) -> None:
        checkpoint = read_checkpoint(path)
        try:
            self.load_state_dict(checkpoint["state_dict"])
        except RuntimeError as error:
            raise ConfigError(
                f"model.init_from={path!r} has another shape than this model: {error}"
            ) from None
        self.on_load_checkpoint({**checkpoint})
