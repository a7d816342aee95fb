"Networks of timm are what timm makes of them: width, vectors, weights; and folding changes none of it."

import pytest
import torch
from torch import nn

from vad.models.backbones import randomly_initialised, fold, make_backbone, timm_models, to_fold, width_of
from vad.core.errors import UserError

# one small network of each family, with a size in pixels where it takes a smaller one than its own (those of a hundred million parameters and more are left out)
FAMILIES = dict(
    beit_base_patch16_224=None, eca_botnext26ts_256=None, mobileone_s1=64, cait_xxs24_224=None, coat_tiny=None, convit_tiny=None, convmixer_768_32=64,
    convnext_atto_rms=64, cpubone_nano=64, crossvit_tiny_240=None, csatv2=64, cs3darknet_focus_s=64, cspnext_tiny=64, davit_tiny=64, deit_tiny_patch16_224=None,
    densenet121=64, dla46x_c=64, dpn48b=64, edgenext_xx_small=64, efficientformer_l1=None, efficientformerv2_s0=None, mobilenetv2_050=64, efficientvim_m1=64,
    efficientvit_b0=64, efficientvit_m0=None, vit_small_patch16_dinov3=None, fasternet_t0=64, fastvit_t8=64, focalnet_tiny_srf=64, gcvit_xxtiny=None,
    ghostnet_050=64, hardcorenas_b=64, hgnetv2_b0=64, hiera_tiny_224=None, sam2_hiera_tiny=64, hrnet_w18_small=64, iformer_t=64, inception_next_atto=64,
    inception_resnet_v2=128, inception_v3=128, inception_v4=128, lcnetv2_small=64, levit_128s=None, lowformer_b0=64, mambaout_femto=64, maxvit_pico_rw_256=None,
    poolformerv2_s12=64, gmlp_ti16_224=None, mobilenetv3_small_050=64, mobilenetv5_base=64, mobilevit_xxs=64, mvitv2_tiny=None, naflexvit_base_patch16_gap=64,
    nasnetalarge=64, nest_tiny=None, nextvit_small=64, eca_nfnet_l0=64, pit_ti_224=None, pnasnet5large=64, pvt_v2_b0=64, qwen3_vit_88m=64, rdnet_tiny=64,
    regnetx_002=64, repghostnet_050=64, repvit_m1=64, res2next50=64, resnest14d=64, resnet18=64, resnetv2_18=64, rexnet_100=64, selecsls42=64, legacy_seresnet18=64,
    sequencer2d_s=None, shvit_s1=64, skresnet18=64, starnet_s050=64, swiftformer_xs=None, swin_tiny_patch4_window7_224=None, swinv2_tiny_window8_256=None,
    swinv2_cr_tiny_224=None, tiny_vit_5m_224=64, tnt_s_legacy_patch16_224=None, tresnet_m=64, twins_svt_small=None, visformer_tiny=None, vit_small_patch16_224=None,
    vit_tiny_r_s16_p8_224=None, vit_srelpos_small_patch16_224=None, samvit_base_patch16_224=None, vitamin_small_224=None, volo_d1_224=None, ese_vovnet19b_slim_dw=64,
    legacy_xception=64, xception41p=64, xcit_nano_12_p8_224=None)
slow = pytest.mark.slow # one network of each of timm's families


def used(net, seed=0):
    "batch normalisations as after training, so that folding has something to fold"
    with randomly_initialised(seed), torch.no_grad():
        for m in net.modules():
            if isinstance(m, nn.BatchNorm2d): m.running_mean.normal_(0, .2); m.running_var.uniform_(.5, 2); m.weight.uniform_(.5, 1.5); m.bias.normal_(0, .2)
    return net.eval()

def norms(net): return sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())

def timms(name, classes=0):
    "a network of timm whose weights are drawn"
    with randomly_initialised(1): return used(timm_models().create_model(name, num_classes=classes))

def agrees_with_timm(name, size, folder):
    "ours, from a file of weights that holds a head for classes, against timm's without one, and against what timm feeds to that head"
    net, bare = timms(name, 5), timms(name)
    torch.save(net.state_dict(), folder / "weights.pth")
    bare.load_state_dict({k: v for k, v in net.state_dict().items() if k in bare.state_dict()})
    ours = make_backbone(name, weights=str(folder / "weights.pth"), size=size, pixels="unit")
    frames = torch.randint(0, 256, (2, *ours.size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        x = frames.permute(0, 3, 1, 2) / 255
        found, wanted = ours(frames), [bare(x), net.forward_head(net.forward_features(x), pre_logits=True)]
    assert found.shape == (2, ours.width) and ours.facts["random"] == []
    for want in wanted: torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()))
    return ours

@pytest.mark.parametrize("name, width", [("mobilenetv3_small_050", 1024), ("mobilenetv4_conv_small_050", 1280), ("ghostnet_050", 1280), ("efficientvit_b0", 1280),
                                         ("efficientvim_m1", 960), ("levit_128s", 384)])
def test_the_width_is_that_of_timms_own_vectors(name, width, tmp_path):
    "their heads are wider than what they call their features, or have names of their own"
    ours = agrees_with_timm(name, None if name == "levit_128s" else 64, tmp_path)
    assert ours.width == ours.facts["width"] == width

@slow
@pytest.mark.parametrize("name", [n for n in FAMILIES])
def test_every_family_agrees_with_timm(name, tmp_path):
    agrees_with_timm(name, FAMILIES[name], tmp_path)


# ---- folding

@pytest.mark.parametrize("name", ["coatnet_nano_rw_224", "maxvit_rmlp_nano_rw_256"])
def test_a_convolution_that_is_read_twice_is_not_folded(name):
    net, x = timms(name), torch.randn(1, 3, *([int(name[-3:])] * 2), generator=torch.Generator().manual_seed(0))
    folded = fold(net, x)
    assert 0 < norms(folded) < norms(net)
    with torch.inference_mode(): torch.testing.assert_close(folded(x), net(x), rtol=1e-3, atol=1e-4)

@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "densenet121"])
def test_what_can_be_folded_still_is(name):
    net, x = timms(name), torch.randn(1, 3, 64, 64)
    folded = fold(net, x)
    assert norms(net) and norms(folded) == norms(net) - len(to_fold(net, x)) == (62 if name == "densenet121" else 0) # which normalises what it has put together

class Reads(nn.Module):
    "a convolution and its normalisation, and another use of what the convolution made"
    def __init__(self, other):
        super().__init__()
        self.conv, self.norm, self.other = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), other

    def forward(self, x):
        y = self.conv(x)
        return self.other(self, x, y, self.norm(y)).mean((2, 3))

SHORTCUTS = dict(
    sum=lambda net, x, y, z: z + y, view=lambda net, x, y, z: z + y[:, :1], late=lambda net, x, y, z: z.relu() * y.detach().sigmoid(),
    twice=lambda net, x, y, z: z + net.conv(x + 1), again=lambda net, x, y, z: z + net.norm(net.conv(x)), renormalised=lambda net, x, y, z: z + net.norm(z))

@pytest.mark.parametrize("other", SHORTCUTS)
def test_readers_are_watched(other):
    with randomly_initialised(0): net = used(Reads(SHORTCUTS[other]))
    assert to_fold(net, torch.randn(1, 3, 9, 9)) == []

def test_what_the_watch_overlooks_is_compared():
    "a network that asks what its normalisation is: no operation tells, but the vectors differ"
    x = torch.randn(1, 3, 9, 9)
    with randomly_initialised(0): net = used(Reads(lambda net, x, y, z: z + 1 if isinstance(net.norm, nn.Identity) else z))
    assert to_fold(net, x) == [("conv", "norm")] and fold(net, x) is net
    with randomly_initialised(0): net = used(Reads(lambda net, x, y, z: z))
    assert to_fold(net, x) == [("conv", "norm")] and norms(fold(net, x)) == 0 and norms(net) == 1


# ---- files of weights

@pytest.mark.parametrize("wrap", [lambda s: dict(state_dict=s, epoch=1), lambda s: dict(model={f"module.{k}": v for k, v in s.items()}),
                                  lambda s: {f"_orig_mod.{k}": v for k, v in s.items()}])
def test_wrappers_and_prefixes_change_no_weight(wrap, tmp_path):
    state = timms("resnet10t", 5).state_dict()
    torch.save(state, tmp_path / "plain.pth")
    torch.save(wrap(state), tmp_path / "wrapped.pth")
    plain, wrapped = (make_backbone("resnet10t", weights=str(tmp_path / f"{n}.pth"), size=64).state_dict() for n in ("plain", "wrapped"))
    assert all(torch.equal(plain[k], wrapped[k]) for k in plain)

@pytest.mark.parametrize("spoil, says", [
    (lambda s: s["layer1.0.conv1.weight"].view(-1)[:1].fill_(float("nan")), "nan or infinite numbers in 'layer1.0.conv1.weight'"),
    (lambda s: s.update({"layer1.0.conv1.weight": s["layer1.0.conv1.weight"].long()}), "another network .layer1.0.conv1.weight")])
def test_weights_that_would_give_wrong_vectors_are_problems(spoil, says, tmp_path):
    state = timms("resnet10t", 5).state_dict()
    spoil(state)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=f"weights.pth.*{says}"): make_backbone("resnet10t", weights=str(tmp_path / "weights.pth"), size=64)


# ---- what is no backbone

def test_what_makes_no_vector_or_takes_no_such_frame_is_a_problem():
    frame = torch.randn(1, 3, 32, 32)
    assert width_of(nn.Sequential(nn.Conv2d(3, 7, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), frame, "x") == 7
    for body, says in ((nn.Conv2d(3, 4, 3), "x does not make one vector"), (nn.Conv2d(3, 4, 64), "x cannot take frames of 32 x 32 pixels")):
        with pytest.raises(UserError, match=says): width_of(body, frame, "x")
    with pytest.raises(UserError, match="inception_v3 cannot take frames of 64 x 64 pixels"): make_backbone("inception_v3", weights="none", size=64)
    with pytest.raises(UserError, match="takes frames of 224 pixels"): make_backbone("levit_128s", weights="none", size=64)
