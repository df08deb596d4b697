/* Process 1 of a guest that means no good: it sends the frames of /frames-MAC by the NIC of that MAC address, from its
 * first instruction on and without end; those of NICs that are plugged in later too. A file is frames, each behind its
 * length (16 bits, little endian). */
#include <net/if.h>
#include <linux/if_packet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define NICS 8

struct nic {
	int socket, index;
	unsigned char *frames;
	size_t length, at;
};

static int read_frames(struct nic *nic, const unsigned char *mac)
{
	char path[64];
	snprintf(path, sizeof path, "/frames-%02x%02x%02x%02x%02x%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
	FILE *file = fopen(path, "rb");
	if (!file)
		return -1;
	nic->frames = malloc(1 << 16);
	nic->length = nic->frames ? fread(nic->frames, 1, 1 << 16, file) : 0;
	fclose(file);
	return nic->length > 2 ? 0 : -1;
}

static int open_nic(struct nic *nic, const char *name)
{
	struct ifreq request = { 0 };
	int s = socket(AF_PACKET, SOCK_RAW, 0);
	if (s < 0)
		return -1;
	snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
	if (ioctl(s, SIOCGIFHWADDR, &request) < 0 || read_frames(nic, (unsigned char *)request.ifr_hwaddr.sa_data) < 0)
		goto fail;
	if (ioctl(s, SIOCGIFFLAGS, &request) < 0)
		goto fail;
	request.ifr_flags |= IFF_UP;
	if (ioctl(s, SIOCSIFFLAGS, &request) < 0 || ioctl(s, SIOCGIFINDEX, &request) < 0)
		goto fail;
	nic->socket = s;
	nic->index = request.ifr_ifindex;
	nic->at = 0;
	return 0;
fail:
	close(s);
	return -1;
}

static void send_next(struct nic *nic)
{
	if (nic->at + 2 > nic->length)
		nic->at = 0;
	size_t length = nic->frames[nic->at] | nic->frames[nic->at + 1] << 8;
	struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_ifindex = nic->index, .sll_halen = 6 };
	sendto(nic->socket, nic->frames + nic->at + 2, length, 0, (struct sockaddr *)&to, sizeof to);
	nic->at += 2 + length;
}

int main(void)
{
	struct nic nics[NICS] = { 0 };
	for (unsigned n = 0;; n++) {
		for (int i = 0; i < NICS; i++) {
			char name[16];
			snprintf(name, sizeof name, "eth%d", i);
			if (!nics[i].frames && n % 64 == 0 && open_nic(&nics[i], name) < 0)
				continue;
			if (nics[i].frames)
				send_next(&nics[i]);
		}
		usleep(500);
	}
}
