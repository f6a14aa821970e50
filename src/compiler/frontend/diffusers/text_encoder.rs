//! transformers' `CLIPTextModel`, OpenAI's and OpenCLIP's: token ids `[1, tokens]` to the last hidden state after the final
//! norm, `[1, tokens, hidden_size]`. Its parameters' names begin with `text_model.`.

use super::config::{HiddenAct, TextEncoderConfig};
use super::layers::{ArchitectureError, Builder, Built};
use super::parameters::Parameters;
use crate::graph::{Activation, Graph, Op};

/// Builds the graph `text_encoder` with the input `input_ids` and the output `last_hidden_state`.
pub fn build(
    config: &TextEncoderConfig,
    parameters: &mut dyn Parameters,
) -> Result<Graph, ArchitectureError> {
    let mut b = Builder::new("text_encoder", "text_model.", parameters);
    check(&b, config)?;
    let (tokens, width) = (config.max_position_embeddings, config.hidden_size);
    let activation = match config.hidden_act {
        HiddenAct::QuickGelu => Activation::QuickGelu,
        HiddenAct::Gelu => Activation::Gelu,
    };

    let ids = b.graph.add_input("input_ids", &[1, tokens]);
    let table = b.parameter(
        "embeddings.token_embedding",
        "weight",
        &[config.vocab_size, width],
    )?;
    let positions = b.parameter("embeddings.position_embedding", "weight", &[tokens, width])?;
    let x = b.add(
        Op::Gather,
        &[Some(table), Some(ids)],
        "embeddings.token_embedding",
    )?;
    let mut x = b.sum("embeddings", x, positions)?;
    for layer in 0..config.num_hidden_layers {
        let layer = format!("encoder.layers.{layer}");
        let name = |part: &str| format!("{layer}.{part}");
        let h = b.layer_norm(&name("layer_norm1"), x, config.layer_norm_eps)?;
        let q = b.linear(&name("self_attn.q_proj"), h, width)?;
        let k = b.linear(&name("self_attn.k_proj"), h, width)?;
        let v = b.linear(&name("self_attn.v_proj"), h, width)?;
        let heads = config.num_attention_heads;
        let h = b.attend(&name("self_attn"), [q, k, v], heads, true)?;
        let h = b.linear(&name("self_attn.out_proj"), h, width)?;
        x = b.sum(&layer, x, h)?;
        let h = b.layer_norm(&name("layer_norm2"), x, config.layer_norm_eps)?;
        let h = b.linear(&name("mlp.fc1"), h, config.intermediate_size)?;
        let h = b.unary(&name("mlp.activation_fn"), h, activation)?;
        let h = b.linear(&name("mlp.fc2"), h, width)?;
        x = b.sum(&layer, x, h)?;
    }
    let x = b.layer_norm("final_layer_norm", x, config.layer_norm_eps)?;
    Ok(b.finish(x, "last_hidden_state"))
}

fn check(b: &Builder<'_>, config: &TextEncoderConfig) -> Built<()> {
    for (name, size) in [
        ("vocab_size", config.vocab_size),
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("num_hidden_layers", config.num_hidden_layers),
        ("num_attention_heads", config.num_attention_heads),
        ("max_position_embeddings", config.max_position_embeddings),
    ] {
        b.check_sizes(name, &[size])?;
    }
    Ok(())
}
