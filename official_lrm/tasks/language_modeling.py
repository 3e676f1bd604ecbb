"""The Model Garden task of language modelling with memory."""

import os

import tensorflow as tf
from official.core import base_task, task_factory

from official_lrm.configs.language_modeling import LanguageModelingConfig
from official_lrm.configs.settings import model_arguments
from official_lrm.data import (
    EvaluationLanes,
    TokenizedSplit,
    TokenShards,
    TrainingLanes,
    WordTokenizer,
    learn_tokenizer,
    load_corpus,
    load_tokenizer,
    read_through_service,
    tokenize_split,
    write_shards,
)
from official_lrm.memory.state import POSITION, reset_lanes
from official_lrm.models import TransformerXLLanguageModel
from official_lrm.models.presets import TOKENIZER_FILE, load_preset_weights
from official_lrm.tasks.gradient_accumulation import accumulate, check_groups
from official_lrm.tasks.optimizer import SummedGradientAdam, WarmupCosine
from official_lrm.tasks.position_buckets import sum_by_position


@task_factory.register_task_cls(LanguageModelingConfig)
class LanguageModelingTask(base_task.Task):
    """Predicts each next token of a corpus from all tokens before it.

    A step's inputs carry what the step depends on, so that it is a function:
    `tokens`, `targets` [B, T] int32, `weights` [B, T] float32 (0 for padding),
    `reset` [B] bool, `memories` (the dict that the model takes) and, in
    training, `seed` [2] int32. The logs hold the memories after the step.
    """

    def __init__(self, params, logging_dir=None, name=None):
        super().__init__(params, logging_dir=logging_dir, name=name)
        self._corpus = None
        self._tokenizer = None
        self._splits = {}
        self._shards = {}
        self._lanes = {}

    @property
    def corpus(self):
        """The text, loaded when first asked for."""
        if self._corpus is None:
            config = self.task_config.corpus
            self._corpus = load_corpus(config.name, config.input_path or None)
        return self._corpus

    @property
    def tokenizer(self):
        """What turns the text into ids, made when first asked for.

        That of the preset which the run starts from, if it holds one: its
        weights know other ids. Else as `task.corpus.tokenizer` says: symbols
        are those of all splits, words and pieces of the split of
        `task.train_data`.

        Raises:
            ValueError: naming what does not go together.
        """
        if self._tokenizer is None:
            config = self.task_config
            file = os.path.join(config.init_checkpoint or "", TOKENIZER_FILE)
            if config.init_checkpoint and os.path.isfile(file):
                self.use_tokenizer(load_tokenizer(file), config.init_checkpoint)
            else:
                self.use_tokenizer(
                    self._make_tokenizer(), f"corpus {config.corpus.name!r}"
                )
        return self._tokenizer

    def use_tokenizer(self, tokenizer, source):
        """Sets the tokenizer, before anything is encoded.

        Args:
            tokenizer: that of the weights which the task will run.
            source: where it is from, for errors.

        Raises:
            ValueError: if it is not what `task.corpus.tokenizer` says, or has
                more ids than `task.model.vocab_size`.
        """
        kind = tokenizer.get_config()["type"]
        corpus, model = self.task_config.corpus, self.task_config.model
        if kind != corpus.tokenizer:
            raise ValueError(
                f"task.corpus.tokenizer must be {kind!r}, as in {source}; got "
                f"{corpus.tokenizer!r}."
            )
        if tokenizer.vocab_size > model.vocab_size:
            raise ValueError(
                f"task.model.vocab_size must be at least the "
                f"{tokenizer.vocab_size} {kind} of {source}; got "
                f"{model.vocab_size}."
            )
        self._tokenizer = tokenizer

    def _make_tokenizer(self):
        config = self.task_config
        kind, vocab_size = config.corpus.tokenizer, config.model.vocab_size
        if kind in ("bytes", "symbols") and vocab_size > 256:
            raise ValueError(
                f"task.model.vocab_size must be at most 256 with "
                f"task.corpus.tokenizer={kind}; got {vocab_size}."
            )
        if config.init_checkpoint and kind != "bytes":
            raise ValueError(
                f"{config.init_checkpoint} holds no {TOKENIZER_FILE}, so which "
                f"{kind} its ids stand for is not known: "
                f"task.corpus.tokenizer={kind} needs it to start from there."
            )
        if config.corpus.vocabulary:
            return WordTokenizer.from_vocabulary_file(config.corpus.vocabulary)
        return learn_tokenizer(
            kind,
            self.corpus,
            # Symbols are counted as Dai et al. count them.
            "all" if kind == "symbols" else config.train_data.split,
            vocab_size,
            config.corpus.skip_newlines,
            config.corpus.cache_dir or None,
        )

    def tokenized(self, split) -> TokenizedSplit:
        """The token ids of a split, made when first asked for.

        Args:
            split: one of the corpus's, or "all".
        """
        if split not in self._splits:
            self._splits[split] = tokenize_split(
                self.corpus,
                split,
                self.tokenizer,
                self.task_config.corpus.cache_dir or None,
            )
        return self._splits[split]

    def token_shards(self, split) -> TokenShards | None:
        """The tokens of a split in `task.corpus.shard_dir`, None without it.

        They are written when first asked for, unless they are there.

        Args:
            split: one of the corpus's, or "all".
        """
        config = self.task_config.corpus
        if config.shard_dir and split not in self._shards:
            self._shards[split] = write_shards(
                self.tokenized(split).tokens,
                config.shard_dir,
                f"{config.name}-{split}",
            )
        return self._shards.get(split)

    def training_lanes(self) -> TrainingLanes:
        """The lanes of `task.train_data`."""
        return self._cut(TrainingLanes, "train_data")

    def evaluation_lanes(self) -> EvaluationLanes:
        """The lanes of `task.validation_data`."""
        return self._cut(EvaluationLanes, "validation_data")

    def _cut(self, lanes_class, field):
        if lanes_class not in self._lanes:
            config = getattr(self.task_config, field)
            text = self.tokenized(config.split).first_targets(config.max_tokens)
            try:
                self._lanes[lanes_class] = lanes_class(
                    text.tokens,
                    num_lanes=config.global_batch_size,
                    segment_length=config.segment_length,
                    document_starts=text.document_starts,
                )
            except ValueError as error:
                raise ValueError(
                    f"task.{field}, {config.split} split: {error}"
                ) from None
        return self._lanes[lanes_class]

    def build_model(self):
        """Builds the model in Keras's global dtype policy."""
        return TransformerXLLanguageModel(
            **model_arguments(self.task_config.model)
        )

    @classmethod
    def create_optimizer(cls, optimizer_config, runtime_config=None):
        """Builds a Keras 3 Adam.

        Args:
            optimizer_config: OptimizerSettings.
            runtime_config: not used.

        Returns:
            An optimizer whose gradients are to be summed over replicas before
            they reach it.
        """
        del runtime_config
        settings = optimizer_config
        return SummedGradientAdam(
            WarmupCosine(
                learning_rate=settings.learning_rate,
                warmup_steps=settings.warmup_steps,
                warmup_learning_rate=settings.warmup_learning_rate,
                decay_steps=settings.decay_steps,
                offset=settings.offset,
                alpha=settings.alpha,
            ),
            beta_1=settings.beta_1,
            beta_2=settings.beta_2,
            epsilon=settings.epsilon,
            name="adam",
        )

    def initialize(self, model):
        """Loads the weights of `task.init_checkpoint`, a preset, if any."""
        if self.task_config.init_checkpoint:
            load_preset_weights(model, self.task_config.init_checkpoint)

    def build_inputs(self, params, input_context=None, start_step=0):
        """The lanes of this host from a given step on.

        They are read in this process from the cache, or by the graph of the
        dataset from `task.corpus.shard_dir`, which may be elsewhere: on a
        remote host of the strategy, or in the worker of a tf.data service.

        Args:
            params: `task.train_data` or `task.validation_data`.
            input_context: tf.distribute.InputContext, or None for one host
                with one replica.
            start_step: the first step of training to read.

        Returns:
            A dataset with one element a step for each replica of this host.

        Raises:
            ValueError: if the lanes cannot be dealt to the replicas evenly,
                or the host is a remote one and there are no shards.
            OSError: if the shards cannot be written, or no dispatcher of the
                tf.data service answers.
        """
        num_hosts, host, num_replicas = 1, 0, 1
        if input_context is not None:
            num_hosts = input_context.num_input_pipelines
            host = input_context.input_pipeline_id
            num_replicas = input_context.num_replicas_in_sync // num_hosts
        training = params is self.task_config.train_data
        lanes = self.training_lanes() if training else self.evaluation_lanes()
        if lanes.num_lanes % (num_hosts * num_replicas):
            raise ValueError(
                f"global_batch_size must be a multiple of the "
                f"{num_hosts * num_replicas} replicas; got {lanes.num_lanes}."
            )
        per_host = lanes.num_lanes // num_hosts
        start_step = start_step if training else 0
        arguments = {"start_step": start_step} if training else {}
        dataset = lanes.dataset(
            first_lane=host * per_host,
            num_lanes=per_host,
            num_replicas=num_replicas,
            shards=self.token_shards(params.split),
            **arguments,
        )
        if not params.tf_data_service_address:
            return dataset
        return read_through_service(
            dataset, params.tf_data_service_address, start_step, num_replicas
        )

    def build_metrics(self, training=True):
        """None: figures are summed in the step functions themselves."""
        del training
        return []

    def train_step(
        self,
        inputs,
        model,
        optimizer,
        metrics=None,
        clip=None,
        gradient_accumulation_steps=1,
    ):
        """One step on one replica.

        The gradient is summed over the replicas first, then clipped by its
        global norm, then applied.

        Args:
            inputs: see the class.
            model: a TransformerXLLanguageModel.
            optimizer: as `create_optimizer` makes it.
            metrics: not used.
            clip: bound on the global norm, or None.
            gradient_accumulation_steps: groups that the lanes are worked
                through in, one after the other. Each draws dropout masks of
                its own; nothing else depends on it but memory and time.

        Returns:
            A dict: `loss`, this replica's share of the mean loss in nats;
            `gradient_norm` before clipping; the `learning_rate` that was
            applied; `memories`.

        Raises:
            ValueError: if the lanes cannot be cut into so many equal groups.
        """
        del metrics
        context = tf.distribute.get_replica_context()
        targets = context.all_reduce(
            tf.distribute.ReduceOp.SUM, tf.reduce_sum(inputs["weights"])
        )
        if gradient_accumulation_steps == 1:
            (loss, gradients), memories = self._gradients(
                inputs, model, targets
            )
        else:
            check_groups(gradient_accumulation_steps, inputs["tokens"].shape[0])
            (loss, gradients), memories = self._accumulated_gradients(
                inputs, model, targets, gradient_accumulation_steps
            )
        learning_rate = tf.identity(optimizer.learning_rate)
        gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        norm = tf.linalg.global_norm(gradients)
        if clip is not None:
            gradients, _ = tf.clip_by_global_norm(
                gradients, clip, use_norm=norm
            )
        optimizer.apply(gradients, model.trainable_variables)
        return {
            self.loss: loss,
            "gradient_norm": norm,
            "learning_rate": learning_rate,
            "memories": memories,
        }

    def _gradients(self, inputs, model, targets):
        # ((loss, its gradients), memories) of some lanes; `targets` is the sum
        # of the weights that the mean is over.
        memories = reset_lanes(inputs["memories"], inputs["reset"])
        with tf.GradientTape() as tape:
            log_probs, segment = model.score(
                inputs["tokens"],
                inputs["targets"],
                memories,
                training=True,
                seed=inputs["seed"],
                rematerialize=self.task_config.model.rematerialize,
                append=False,
            )
            weights = tf.cast(inputs["weights"] / targets, log_probs.dtype)
            loss = -tf.reduce_sum(log_probs * weights)
        gradients = tape.gradient(
            loss,
            [variable.value for variable in model.trainable_variables],
            # T=1 without any memory: one key, whose score does not matter.
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        gradients = [tf.convert_to_tensor(value) for value in gradients]
        # When the activations are gone, and not beside them.
        with tf.control_dependencies(gradients):
            memories = model.append_segment(memories, segment, gradients)
        return (loss, gradients), memories

    def _accumulated_gradients(self, inputs, model, targets, num_groups):
        lanes = {name: x for name, x in inputs.items() if name != "seed"}

        def group_gradients(group_inputs, group):
            seed = tf.random.experimental.stateless_fold_in(
                inputs["seed"], group
            )
            return self._gradients(
                {**group_inputs, "seed": seed}, model, targets
            )

        gradients = [
            tf.zeros(variable.shape, variable.dtype)
            for variable in model.trainable_variables
        ]
        loss = tf.zeros((), model.softmax.compute_dtype)
        return accumulate(group_gradients, lanes, num_groups, (loss, gradients))

    def validation_step(self, inputs, model, metrics=None):
        """Scores one segment on one replica; see `score_segment`."""
        del metrics
        return score_segment(inputs, model)


def score_segment(inputs, model, projected_positions=None):
    """Sums the log-probabilities of a segment's targets.

    Args:
        inputs: see LanguageModelingTask.
        model: a TransformerXLLanguageModel.
        projected_positions: as for `model.score`.

    Returns:
        A dict: `nats`, the negative sum in float64; `tokens`, the sum of the
        weights in float64; `position_nats` and `position_tokens`
        [NUM_BUCKETS] float64, the same by position (see position_buckets);
        `memories`.
    """
    memories = reset_lanes(inputs["memories"], inputs["reset"])
    position = memories[POSITION]
    log_probs, memories = model.score(
        inputs["tokens"],
        inputs["targets"],
        memories,
        projected_positions=projected_positions,
    )
    weights = tf.cast(inputs["weights"], tf.float64)
    nats = -tf.cast(log_probs, tf.float64) * weights
    return {
        "nats": tf.reduce_sum(nats),
        "tokens": tf.reduce_sum(weights),
        "position_nats": sum_by_position(nats, position),
        "position_tokens": sum_by_position(weights, position),
        "memories": memories,
    }
