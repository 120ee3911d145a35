"""The scales of the KV that target and drafter share, as an exchange's spec has them."""

from dataclasses import replace

from tandem.exchange.spec import ExchangeSpec
from tandem.kv_cache.scales import KvScales
from tandem.kv_cache.storage import KvStorage
from tandem.models.gemma4.target import Gemma4Target


def scaled_spec(spec: ExchangeSpec, target: Gemma4Target, storage: KvStorage) -> ExchangeSpec:
    """`spec` with the scales of the layers that a drafter reads."""
    scales = {group: storage.scales(layer_id) for group, layer_id in target.drafter_layers.items()}
    layers = tuple(
        replace(
            layer,
            key_exponent=scales[layer.group].key_exponent,
            value_exponent=scales[layer.group].value_exponent,
        )
        for layer in spec.layers
    )
    return replace(spec, layers=layers)


def shared_scales(spec: ExchangeSpec) -> dict[str, KvScales]:
    """Group -> what the shared keys and values of its layer are divided by."""
    return {layer.group: KvScales(layer.key_exponent, layer.value_exponent) for layer in spec.layers}
