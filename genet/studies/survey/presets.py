"""Sets of networks to survey, by timm's names."""

PAPER = """
tresnet_m tresnet_l tresnet_xl gernet_s gernet_m gernet_l efficientnetv2_s@384 efficientnetv2_m@416 efficientnet_b0
efficientnet_b1 efficientnet_b2@288 regnetx_002 regnetx_004 regnetx_006 regnetx_008 regnetx_016 regnetx_032 regnetx_040
regnetx_080 regnety_002 regnety_004 regnety_006 regnety_008 regnety_016 regnety_032@288 regnety_040 regnety_064 resnet18
resnet50 wide_resnet50_2 resnetrs50@220 resnetrs101@288 resnetrs152@320 resnetrs200@320 resnetrs270@352 seresnet18 seresnet34
seresnet50 seresnet101 seresnet152d@320 resnext50_32x4d resnext50d_32x4d resnext101_32x4d resnext101_32x8d seresnext26d_32x4d
seresnext26t_32x4d seresnext50_32x4d seresnext101_32x4d cspresnet50 cspresnext50@224 repvgg_a2 repvgg_b0 repvgg_b1 repvgg_b1g4
repvgg_b2 repvgg_b2g4 repvgg_b3 repvgg_b3g4 dpn68 dpn68b dpn92 dpn98 dpn107 dpn131 hrnet_w18_small hrnet_w18_small_v2 hrnet_w18
hrnet_w30 hrnet_w32 hrnet_w40 hrnet_w44 hrnet_w48 hrnet_w64 dla34 dla46_c dla46x_c dla60 dla60x dla60x_c dla60_res2net
dla60_res2next dla102 dla102x dla169 mixnet_s mixnet_m
"""  # the utilization paper's survey, except for once-for-all networks, which timm lacks, and a second resnext50

PRESETS: dict[str, dict[str, int | None]] = {  # names, and resolutions other than timm's, which follow from the paper's FLOPs
    "paper": {f"timm:{name}": int(size) if size else None for name, _, size in (each.partition("@") for each in PAPER.split())}
}
