//! What tells two models of one architecture apart: the fields of diffusers' and transformers' `config.json` that count.

/// A CLIP or OpenCLIP text encoder (transformers' `CLIPTextModel`).
#[derive(Clone, Debug, PartialEq)]
pub struct TextEncoderConfig {
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Width of the embeddings.
    pub hidden_size: usize,
    /// Width inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Layers. SD 2's checkpoints in the original layout hold 24 of which 23 are used; that is decided before.
    pub num_hidden_layers: usize,
    /// Heads of each attention.
    pub num_attention_heads: usize,
    /// Tokens of a prompt, begin and end included.
    pub max_position_embeddings: usize,
    /// The feed-forward layers' activation.
    pub hidden_act: HiddenAct,
    /// Epsilon of the norms.
    pub layer_norm_eps: f32,
}

/// The activation of a text encoder's feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HiddenAct {
    /// `x * sigmoid(1.702 x)`: OpenAI's CLIP.
    QuickGelu,
    /// The exact GELU: OpenCLIP.
    Gelu,
}

/// A UNet (diffusers' `UNet2DConditionModel`). Lists are by level, the finest first.
#[derive(Clone, Debug, PartialEq)]
pub struct UnetConfig {
    /// Channels of its input: 4, or 9 for inpainting.
    pub in_channels: usize,
    /// Channels of its output.
    pub out_channels: usize,
    /// Channels of each level.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of each level on the way down; on the way up there is one more unless `up_layers` says so.
    pub down_layers: Vec<usize>,
    /// Residual blocks of each level on the way up, here too the finest level first.
    pub up_layers: Vec<usize>,
    /// Transformer layers in each attention of a level on the way down; 0 for a level without attention.
    pub down_attention: Vec<usize>,
    /// The same on the way up, the finest level first.
    pub up_attention: Vec<usize>,
    /// The middle; `None` for a UNet without one.
    pub mid: Option<MidBlock>,
    /// Heads of the attentions of each level. (diffusers calls it `attention_head_dim` in SD's files.)
    pub heads: Vec<usize>,
    /// Width of the context.
    pub cross_attention_dim: usize,
    /// Groups of the norms.
    pub norm_num_groups: usize,
    /// Epsilon of the residual blocks' norms.
    pub norm_eps: f32,
    /// Whether a transformer's `proj_in` and `proj_out` are Linear layers instead of 1x1 convolutions.
    pub use_linear_projection: bool,
    /// Whether the cosines of the timestep's embedding come first.
    pub flip_sin_to_cos: bool,
    /// What is subtracted from half the embedding's width in its frequencies.
    pub freq_shift: f64,
    /// Width of an embedded guidance scale that is added to the timestep's (LCM: 256).
    pub time_cond_proj_dim: Option<usize>,
    /// Height and width of the latent that it was trained on.
    pub sample_size: [usize; 2],
}

/// A UNet's middle (`UNetMidBlock2DCrossAttn`, or `UNetMidBlock2D` without attention).
#[derive(Clone, Debug, PartialEq)]
pub struct MidBlock {
    /// Transformer layers of its attention; 0 for none.
    pub attention: usize,
    /// Heads of the attention.
    pub heads: usize,
}

/// A KL autoencoder (diffusers' `AutoencoderKL`).
#[derive(Clone, Debug, PartialEq)]
pub struct VaeConfig {
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Channels of each level, the finest first.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of each level of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Groups of the norms.
    pub norm_num_groups: usize,
    /// Whether there is a 1x1 convolution after the encoder.
    pub use_quant_conv: bool,
    /// Whether there is a 1x1 convolution before the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middles have an attention.
    pub mid_block_add_attention: bool,
    /// Latents are divided by it before they are decoded.
    pub scaling_factor: f64,
}

/// A tiny autoencoder (diffusers' `AutoencoderTiny`, TAESD).
#[derive(Clone, Debug, PartialEq)]
pub struct TinyVaeConfig {
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Channels of each level of the encoder; all levels of TAESD have 64.
    pub encoder_block_out_channels: Vec<usize>,
    /// The same of the decoder.
    pub decoder_block_out_channels: Vec<usize>,
    /// Blocks of each level of the encoder.
    pub num_encoder_blocks: Vec<usize>,
    /// The same of the decoder.
    pub num_decoder_blocks: Vec<usize>,
    /// Latents are divided by it before they are decoded.
    pub scaling_factor: f64,
}
