// The losses from C++, without Python: a small network learns a disc from a few labelled pixels.
#include <accl_ext.h>
#include <torch/torch.h>

#include <cstdio>

int main() {
  torch::manual_seed(0);
  // A bright disc in noise; labelled: its middle (1), a corner (0); 255 is not known.
  const at::Tensor axis = torch::arange(64) - 32;
  const at::Tensor disc = (axis.square().unsqueeze(1) + axis.square() < 15 * 15).to(torch::kFloat);
  const at::Tensor image = (disc + 0.3 * torch::randn({64, 64})).view({1, 1, 64, 64});
  at::Tensor labels = torch::full({1, 64, 64}, 255, torch::kByte);
  labels.slice(1, 29, 35).slice(2, 29, 35).fill_(1);
  labels.slice(1, 0, 6).slice(2, 0, 6).fill_(0);
  const double size = disc.sum().item<double>();
  const at::Tensor bounds = torch::tensor({0.9 * size, 1.1 * size}, torch::kFloat);

  namespace nn = torch::nn;
  nn::Sequential generator(nn::Conv2d(nn::Conv2dOptions(1, 8, 5).padding(2)), nn::ReLU(),
                           nn::Conv2d(nn::Conv2dOptions(8, 1, 5).padding(2)));
  nn::Sequential discriminator(nn::Conv2d(nn::Conv2dOptions(1, 8, 4).stride(2)), nn::LeakyReLU(),
                               nn::Conv2d(nn::Conv2dOptions(8, 1, 4).stride(2)));
  torch::optim::Adam optimizer_g(generator->parameters(), 1e-2);
  torch::optim::Adam optimizer_d(discriminator->parameters(), 1e-3);
  const at::Tensor reference = disc.roll(5, 0).view({1, 1, 64, 64}); // a mask of another image

  for (int step = 0; step < 100; ++step) {
    const auto head = accl_ext::segmentation_head(generator->forward(image), labels, bounds);

    optimizer_d.zero_grad();
    const at::Tensor fake = discriminator->forward(head.probabilities.detach());
    const at::Tensor real = discriminator->forward(reference);
    accl_ext::accl_discriminator_loss(fake, real, 0.0, 1.0, "lsgan", 0.5).backward();
    optimizer_d.step();

    optimizer_g.zero_grad();
    const at::Tensor accl = accl_ext::accl_loss(discriminator->forward(head.probabilities));
    const at::Tensor crf = accl_ext::gated_crf_loss(head.probabilities, image, {.radius = 3});
    (head.partial_ce + 0.01 * head.size_penalty + 0.1 * crf + 0.01 * accl).backward();
    optimizer_g.step();
  }

  torch::NoGradGuard no_grad;
  const at::Tensor predicted = (generator->forward(image) > 0).to(torch::kFloat).view({64, 64});
  const at::Tensor dice = 2 * (predicted * disc).sum() / (predicted.sum() + disc.sum());
  std::printf("Dice %.3f\n", dice.item<double>());
  return dice.item<double>() > 0.8 ? 0 : 1;
}
